"""Counts consecutive skipped updates on the device."""

from __future__ import annotations

import tensorflow as tf


class SkipCounter(tf.Module):
    """Notices when too many consecutive updates are skipped; create it inside `strategy.scope()`.

    Attributes:
        limit: Number of consecutive skipped updates that are too many; 0 = no limit.
        count: int64 scalar variable, skipped updates since the last applied one. Part of the checkpoint.
        reached_at: int64 scalar variable, the update that reached the limit, -1 if none has. Part of the checkpoint.
    """

    def __init__(self, *, limit: int, name: str = "skip_counter") -> None:
        """Creates the variables.

        Args:
            limit: Number of consecutive skipped updates that are too many; 0 = no limit.
            name: Name of the module.

        Raises:
            ValueError: The limit is negative.
        """
        super().__init__(name=name)
        if limit < 0:
            raise ValueError(f"train.max_consecutive_skips must be at least 0, got {limit}")
        self.limit = limit
        options = {"dtype": tf.int64, "trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.count = tf.Variable(0, name="count", **options)
        self.reached_at = tf.Variable(-1, name="reached_at", **options)

    def update(self, *, is_applied: tf.Tensor, is_no_fault: tf.Tensor | bool, update: tf.Tensor) -> None:
        """Counts one update; graph, cross-replica context.

        Args:
            is_applied: bool scalar, whether the update was applied.
            is_no_fault: bool scalar, whether a skip is harmless: the loss scale of float16 can still be halved, or the
                update had no row with a loss, which the limit of unreadable rows handles. A harmless skip leaves the
                count unchanged.
            update: int64 scalar, number of this update.
        """
        skipped = self.count + tf.where(is_no_fault, tf.constant(0, tf.int64), tf.constant(1, tf.int64))
        count = tf.where(is_applied, tf.zeros_like(skipped), skipped)
        self.count.assign(count)
        if self.limit:
            is_first = (count >= self.limit) & (self.reached_at < 0)
            self.reached_at.assign(tf.where(is_first, tf.cast(update, tf.int64), self.reached_at))

    def take(self) -> range:
        """Returns the updates that reached the limit and clears them; empty if none did; eager.

        They are cleared because a resumed run continues after these updates; they must not stop it twice.
        """
        last = int(self.reached_at.numpy())
        if last < 0:
            return range(0)
        self.count.assign(0)
        self.reached_at.assign(-1)
        return range(last - self.limit + 1, last + 1)
