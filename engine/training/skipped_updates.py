"""Updates that were skipped one after the other: counted on the device, named and stopped on the host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from common import storage
from common.workdir_layout import SKIPPED_FILE
from engine.common import files
from engine.common.signals import StopTraining


class SkipCounter(tf.Module):
    """Notices when too many updates in a row are skipped; make it inside `strategy.scope()`.

    Belongs into the checkpoint.

    Attributes:
        count: int64 scalar variable: skipped updates since the last one that was applied.
        reached_at: int64 scalar variable: the update that made the limit full, -1 while none has.
    """

    def __init__(self, *, limit: int, name: str = "skip_counter") -> None:
        """Makes the variables.

        Args:
            limit: Skipped updates in a row that are too many; 0 = any number is allowed.
            name: Name of the module.

        Raises:
            ValueError: The limit is negative.
        """
        super().__init__(name=name)
        if limit < 0:
            raise ValueError(f"train.max_skipped_in_a_row must be at least 0, got {limit}")
        self.limit = limit
        options = {"dtype": tf.int64, "trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.count = tf.Variable(0, name="count", **options)
        self.reached_at = tf.Variable(-1, name="reached_at", **options)

    def update(self, *, is_applied: tf.Tensor, is_no_fault: tf.Tensor | bool, update: tf.Tensor) -> None:
        """Takes one update into account; graph, cross-replica context.

        Args:
            is_applied: bool scalar.
            is_no_fault: bool scalar: if it was skipped, the update overflowed while the loss scale could still be
                halved, which is how float16 finds its scale, or it had no row with a loss, which is for the limit of
                bad rows to judge. Such a skip neither counts nor ends a row of others.
            update: int64 scalar, number of this update.
        """
        skipped = self.count + tf.where(is_no_fault, tf.constant(0, tf.int64), tf.constant(1, tf.int64))
        count = tf.where(is_applied, tf.zeros_like(skipped), skipped)
        self.count.assign(count)
        if self.limit:
            is_first = (count >= self.limit) & (self.reached_at < 0)
            self.reached_at.assign(tf.where(is_first, tf.cast(update, tf.int64), self.reached_at))

    def take(self) -> range:
        """Returns the updates that made the limit full and forgets them, empty if it is not; eager.

        Forgotten, because the same command continues behind them: they get no second chance to stop it.
        """
        last = int(self.reached_at.numpy())
        if last < 0:
            return range(0)
        self.count.assign(0)
        self.reached_at.assign(-1)
        return range(last - self.limit + 1, last + 1)


class SkipGuard:
    """Train action: stops a run whose updates are skipped one after the other, and names their utterances."""

    def __init__(
        self,
        *,
        counter: SkipCounter,
        utterance_ids_of: Callable[[int], list[str]],
        workdir: str | os.PathLike[str],
        is_chief: bool = True,
    ) -> None:
        """Keeps its arguments.

        Args:
            counter: Of the trainer.
            utterance_ids_of: Update -> ids of its rows.
            workdir: Where the file of ids goes.
            is_chief: Whether this process writes it; all of them stop.
        """
        self._counter = counter
        self._utterance_ids_of = utterance_ids_of
        self._is_chief = is_chief
        self._path = storage.join(workdir, SKIPPED_FILE)

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Looks at the counter once a train loop.

        Raises:
            StopTraining: The limit was reached; the file lies there.
        """
        del output
        updates = self._counter.take()
        if not updates:
            return
        records = [{"update": update, "utterance_ids": self._utterance_ids_of(update)} for update in updates]
        if self._is_chief:
            files.write_jsonl_atomic(self._path, records)
        raise StopTraining(
            f"{len(updates)} updates in a row, {updates[0]} to {updates[-1]}, had a loss or gradient that is not "
            f"finite (train.max_skipped_in_a_row={self._counter.limit}): their utterances are named in {self._path}; "
            f"look at these, lower train.learning_rate or set train.clip_norm, and run the same command to go on "
            f"behind them"
        )
