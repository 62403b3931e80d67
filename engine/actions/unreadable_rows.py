"""Records training rows that could not be read, and ends a run with too many of them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.common import files
from engine.common.signals import StopTraining
from engine.workdir.records import read_metrics_if_any

SPLIT = "unreadable"
# Recordings of similar length often fail together, which makes whole batches of a bucket unreadable; this many
# consecutive updates come from many buckets.
_WINDOW_UPDATES = 16
_WINDOW_RATIO = 0.5


@dataclasses.dataclass(kw_only=True)
class UnreadableReport:
    """Train action that appends a line to metrics.jsonl for each unreadable utterance, once per run.

    A line has `step` (the end of the train loop that met the utterance), `split` "unreadable", `utterance_id`, `update`
    and `reason`. With several hosts the file lists those of the host that writes it; each host logs its own.

    Attributes:
        path: WORKDIR/metrics.jsonl.
        global_step: Number of updates done.
        unreadable_fn: `TrainData.unreadable`.
    """

    path: str | os.PathLike[str]
    global_step: tf.Variable
    unreadable_fn: Callable[[int], Sequence[tuple[int, str, str]]]
    _known: set[str] | None = dataclasses.field(default=None, init=False)

    def __call__(self, output: Mapping[str, Any] | None = None) -> None:
        """Appends what is new; also call this before a checkpoint is saved within a loop."""
        del output
        step = int(self.global_step.numpy())
        found = self.unreadable_fn(step)
        if not found:
            return
        if self._known is None:
            lines = read_metrics_if_any(self.path)
            self._known = {str(line.get("utterance_id")) for line in lines if line.get("split") == SPLIT}
        for update, utterance_id, reason in found:
            if utterance_id not in self._known:
                self._known.add(utterance_id)
                record = {"step": step, "split": SPLIT, "utterance_id": utterance_id, "update": update}
                files.append_jsonl(self.path, {**record, "reason": reason})


class UnreadableRowGuard:
    """Train action that ends a run if and only if too many rows are unreadable.

    The limit is a share of the corpus. It is certainly exceeded once the unreadable rows of k epochs, finished or
    begun, are more than that share of the rows of k epochs; one unreadable row among the first sixteen proves nothing.
    Recordings that have become unreadable, perhaps because a disk is gone, end the run sooner: when more than half of
    the rows are unreadable in a window of at least sixteen updates.

    When a run ends, the counts are reset: the recordings may be repaired before the same command continues.

    Attributes:
        counts: float64 variable, unreadable rows and all rows. Part of the checkpoint.
    """

    def __init__(self, *, max_unreadable_ratio: float, rows_per_epoch: int, global_step: tf.Variable) -> None:
        """Creates the counts.

        Args:
            max_unreadable_ratio: Largest share of rows that may be unreadable; 1 = any.
            rows_per_epoch: Number of rows of the corpus.
            global_step: Number of updates done.
        """
        self._max_unreadable_ratio = max_unreadable_ratio
        self._rows_per_epoch = rows_per_epoch
        self.counts = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False, name="bad_rows")
        self._global_step = global_step
        self._window_start: int | None = None
        self._window = (0.0, 0.0)  # unreadable rows, all rows

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Counts the rows of a loop.

        Raises:
            StopTraining: Too many are unreadable.
        """
        num_bad, num_rows = (float(output.get(name, 0.0)) for name in ("num_bad", "num_rows"))
        self.counts.assign_add([num_bad, num_rows])
        try:
            self._check_ratio(*self.counts.numpy().tolist())
            self._check_window(num_bad, num_rows)
        except StopTraining:
            # Before the run is saved: rows that are repaired must not be counted again.
            self.counts.assign([0.0, 0.0])
            raise

    def _check_ratio(self, num_bad: float, num_rows: float) -> None:
        num_epochs = max(math.ceil(num_rows / self._rows_per_epoch), 1)
        if num_bad > self._max_unreadable_ratio * self._rows_per_epoch * num_epochs:
            raise StopTraining(
                f"{num_bad:.0f} of {num_rows:.0f} training rows could not be read; in a corpus of "
                f"{self._rows_per_epoch} rows that exceeds data.max_unreadable_ratio={self._max_unreadable_ratio:g}; "
                "metrics.jsonl and the log list them: repair them or raise data.max_unreadable_ratio; the same command "
                "continues and counts from zero"
            )

    def _check_window(self, num_bad: float, num_rows: float) -> None:
        step = int(self._global_step.numpy())
        if self._window_start is None:
            # The number of updates of the first loop is unknown; the window starts after it.
            self._window_start = step
            return
        num_bad, num_rows = self._window[0] + num_bad, self._window[1] + num_rows
        self._window = (num_bad, num_rows)
        num_updates = step - self._window_start
        if num_updates < _WINDOW_UPDATES:
            return
        if num_bad > max(_WINDOW_RATIO, self._max_unreadable_ratio) * num_rows:
            raise StopTraining(
                f"{num_bad:.0f} of the {num_rows:.0f} training rows of the last {num_updates} updates could not be "
                "read; metrics.jsonl and the log list them: check that the recordings have not moved and restore them; "
                "the same command continues and counts from zero"
            )
        self._window_start, self._window = step, (0.0, 0.0)
