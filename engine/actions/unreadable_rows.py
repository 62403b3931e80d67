"""Training rows that could not be read: named in metrics.jsonl, and the end of a run that has too many."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common import storage
from engine.common import files
from engine.common.signals import StopTraining
from engine.workdir.records import read_metrics

SPLIT = "unreadable"
# Where what is wrong goes with the length, whole batches of a bucket are bad; so many in a row come of many buckets.
_WINDOW_UPDATES = 16
_WINDOW_SHARE = 0.5


class UnreadableReport:
    """Train action: a line in metrics.jsonl for every utterance that could not be read, once in the life of a run.

    A line has `step` (the end of the train loop that met it), `split` "unreadable", `utterance_id`, `update` and
    `reason`. On several hosts the file holds those of the host that writes it; each host's log has its own.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        global_step: tf.Variable,
        unreadable_fn: Callable[[int], Sequence[tuple[int, str, str]]],
    ) -> None:
        """Keeps its arguments.

        Args:
            path: WORKDIR/metrics.jsonl.
            global_step: Updates done.
            unreadable_fn: `TrainData.unreadable`.
        """
        self._path = path
        self._global_step = global_step
        self._unreadable_fn = unreadable_fn
        self._known: set[str] | None = None

    def __call__(self, output: Mapping[str, Any] | None = None) -> None:
        """Writes what is new since the last call; also to be called before a checkpoint inside a loop is saved."""
        del output
        step = int(self._global_step.numpy())
        found = self._unreadable_fn(step)
        if not found:
            return
        if self._known is None:
            lines = read_metrics(self._path) if storage.is_file(self._path) else []
            self._known = {str(line.get("utterance_id")) for line in lines if line.get("split") == SPLIT}
        for update, utterance_id, reason in found:
            if utterance_id not in self._known:
                self._known.add(utterance_id)
                record = {"step": step, "split": SPLIT, "utterance_id": utterance_id, "update": update}
                files.append_jsonl(self._path, {**record, "reason": reason})


class BadRowGuard:
    """Train action: ends a run that has too many unreadable rows, and none that has not.

    The share is that of the corpus, so it is sure to be too large once the bad rows of k epochs, finished or begun,
    are more than their share of the rows of k epochs. Before that, one bad row among the first sixteen says nothing.
    Recordings that have become unreadable (a disk that is gone) end a run sooner: when of sixteen updates or more,
    between two checks, more than half of the rows are bad.

    A run that it ends counts anew when the same command continues it: the recordings may have been repaired.
    """

    def __init__(self, *, max_bad_share: float, rows_per_epoch: int, global_step: tf.Variable) -> None:
        """Keeps its arguments.

        Args:
            max_bad_share: Largest share of rows that may be unreadable; 1 = any.
            rows_per_epoch: Rows of the corpus.
            global_step: Updates done.
        """
        self._max_bad_share = max_bad_share
        self._rows_per_epoch = rows_per_epoch
        # Bad rows, all rows; part of the checkpoint.
        self.counts = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False, name="bad_rows")
        self._global_step = global_step
        self._window_start: int | None = None
        self._window = (0.0, 0.0)  # bad rows, all rows

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Counts the loop's rows.

        Raises:
            StopTraining: There are too many bad ones.
        """
        num_bad, num_rows = (float(output.get(name, 0.0)) for name in ("num_bad", "num_rows"))
        if self._window_start is None and self._are_too_many(*self.counts.numpy().tolist()):
            # The checkpoint of a run that was ended for them, by a version that did not forget.
            self.counts.assign([0.0, 0.0])
        self.counts.assign_add([num_bad, num_rows])
        try:
            self._check_share(*self.counts.numpy().tolist())
            self._check_window(num_bad, num_rows)
        except StopTraining:
            # Before the run is saved: what is bad now must not be counted again after it was repaired.
            self.counts.assign([0.0, 0.0])
            raise

    def _are_too_many(self, num_bad: float, num_rows: float) -> bool:
        num_epochs = max(math.ceil(num_rows / self._rows_per_epoch), 1)
        return num_bad > self._max_bad_share * self._rows_per_epoch * num_epochs

    def _check_share(self, num_bad: float, num_rows: float) -> None:
        if self._are_too_many(num_bad, num_rows):
            raise StopTraining(
                f"{num_bad:.0f} of {num_rows:.0f} training rows could not be read, in a corpus of "
                f"{self._rows_per_epoch} certainly more than data.max_bad_share={self._max_bad_share:g}; "
                "metrics.jsonl and the log name them; repair them, or raise data.max_bad_share, and the same command "
                "goes on and counts anew"
            )

    def _check_window(self, num_bad: float, num_rows: float) -> None:
        step = int(self._global_step.numpy())
        if self._window_start is None:
            # The first loop's own updates are not known: it opens the window of what follows.
            self._window_start = step
            return
        num_bad, num_rows = self._window[0] + num_bad, self._window[1] + num_rows
        self._window = (num_bad, num_rows)
        num_updates = step - self._window_start
        if num_updates < _WINDOW_UPDATES:
            return
        if num_bad > max(_WINDOW_SHARE, self._max_bad_share) * num_rows:
            raise StopTraining(
                f"{num_bad:.0f} of the {num_rows:.0f} training rows of the last {num_updates} updates could not be "
                "read: have the recordings moved? metrics.jsonl and the log name them; bring them back, and the same "
                "command goes on and counts anew"
            )
        self._window_start, self._window = step, (0.0, 0.0)
