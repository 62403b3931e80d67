"""Keeps the checkpoint with the best value of a metric."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from engine.checkpointing import manifest
from engine.checkpointing.restore import read_best_record
from engine.common import files


class BestCheckpoint:
    """Keeps exactly one checkpoint, the one with the best value, also across restarts.

    The folder holds the checkpoint and best.json: the metric's name, its value, the update and the kind of weights, and
    `tie_value`, the other metric, which decides between checkpoints with the same value.
    The checkpoint's manifest has the id of the run and a digest of the evaluated set.
    """

    def __init__(
        self,
        *,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        global_step: tf.Variable,
        higher_is_better: bool = False,
        run_id: str = "",
    ) -> None:
        """Reads what an earlier process left in `directory`.

        Args:
            checkpoint: The variables to save; has an attribute `model` for `restore_model`.
            directory: Usually WORKDIR/best.
            global_step: Number of updates done; the checkpoint's number.
            higher_is_better: Whether larger values are better; False for error rates.
            run_id: Id of the run for the manifest; "" leaves it out.

        Raises:
            WorkdirError: best.json is damaged.
        """
        for path in layout.list_checkpoints(directory):
            if damage := manifest.find_damage(path):
                folder = manifest.set_aside(path)
                logging.error("%s is damaged: %s; moved to %s; the next evaluation is saved", path, damage, folder)
        self._manager = tf.train.CheckpointManager(checkpoint, os.fspath(directory), max_to_keep=1)
        self._directory = os.fspath(directory)
        self._record_path = storage.join(directory, layout.BEST_FILE)
        self._global_step = global_step
        self._higher_is_better = higher_is_better
        self._run_id = run_id
        self._record: dict[str, Any] | None = None
        self._set_digest = ""
        # A value whose checkpoint is gone does not count: the next value is the best.
        if paths := layout.list_checkpoints(directory):
            self._record = read_best_record(directory)
            self._set_digest = str((layout.read_manifest(paths[-1]) or {}).get("set_digest", ""))

    @property
    def value(self) -> float | None:
        """Best value so far, or None."""
        return None if self._record is None else float(self._record["value"])

    def is_better(self, value: float, *, than: float) -> bool:
        """Returns whether one value is strictly better than another; NaN is worse than anything."""
        return value == value and (than != than or (value > than if self._higher_is_better else value < than))

    def save_if_better(
        self,
        value: float,
        *,
        metric: str,
        tie_value: float | None = None,
        weights: str = "raw",
        set_digest: str = "",
    ) -> bool:
        """Saves if `value` is better than the best one of the same metric; NaN never is.

        Args:
            value: Value of the metric with the variables' current values.
            metric: Name of the metric. The value of another metric is replaced without a comparison.
            tie_value: Value of a second metric. Where `value` is as good as the best one, the better second value
                decides, and where that is the same too, the later checkpoint. None leaves the earlier one.
            weights: Kind of the current weights, "raw" or "ema"; recorded in best.json.
            set_digest: Digest of the evaluated set. The value of another set is replaced without a comparison; ""
                matches any.

        Returns:
            Whether it saved.
        """
        if value != value:
            return False
        record = self._record or {}
        is_same_set = not set_digest or self._set_digest in ("", set_digest)
        is_same_metric = record.get("metric") == metric
        if is_same_metric and is_same_set and not self._beats_best(value, tie_value):
            return False
        if is_same_metric and not is_same_set:
            logging.warning(
                "%s: the evaluation set of %s has changed since update %d; its %.4g no longer counts",
                self._record_path, metric, record.get("step"), record["value"],
            )  # fmt: skip
        self._save(value, metric=metric, tie_value=tie_value, weights=weights, set_digest=set_digest)
        return True

    def _beats_best(self, value: float, tie_value: float | None) -> bool:
        """Returns whether a value counts as better than the recorded one."""
        record = self._record or {}
        best, best_tie = float(record["value"]), record.get("tie_value")  # absent from best.json of older versions
        if value != best or tie_value is None or not isinstance(best_tie, float):
            return self.is_better(value, than=best) or (value == best and tie_value is not None)
        return not self.is_better(best_tie, than=tie_value)

    def _save(self, value: float, *, metric: str, tie_value: float | None, weights: str, set_digest: str) -> None:
        step = int(self._global_step.numpy())
        path = self._manager.save(checkpoint_number=step)
        about = {"step": step, "metric": metric, "value": float(value)}
        known = {"run_id": self._run_id, "set_digest": set_digest}
        manifest.write_manifest(path, {**about, **{name: text for name, text in known.items() if text}})
        for other in layout.list_checkpoints(self._directory):
            if other != path:  # TensorFlow's list of checkpoints may have been lost
                storage.remove(f"{other}.index")
        manifest.sweep(self._directory)
        # The value comes last: after a kill in between, the old value stands and the repeated evaluation saves again.
        self._record = {"metric": metric, "value": float(value), "step": step, "weights": weights}
        if tie_value is not None and tie_value == tie_value:
            self._record["tie_value"] = float(tie_value)
        self._set_digest = set_digest
        files.write_json_atomic(self._record_path, self._record)
