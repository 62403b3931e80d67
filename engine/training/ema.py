"""Keeps an exponential moving average of the weights and swaps it into the model for evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from engine.checkpointing.background_save import Changes


def ema_name(set_name: str) -> str:
    """Returns the name under which a set's metrics with averaged weights are reported."""
    return f"{set_name}-ema"


class EmaWeights(tf.Module):
    """Averages variables in shadow variables; create it inside `strategy.scope()` and save it as `ema`.

    After the n-th applied update, with d = min(decay, (1 + n) / (10 + n)):

        shadow = d * shadow + (1 - d) * variable

    The small d of the first updates lets the random start fade quickly for any decay. Skipped updates change nothing.

    Attributes:
        shadows: float32 variables in the order of the model's trainable variables.
        changes: Open while the averages are in the model.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, decay: float, name: str = "ema") -> None:
        """Creates a shadow of each variable with its current value.

        Args:
            variables: `model.trainable_variables`.
            decay: Weight of the old average, in (0, 1).
            name: Name of the module.

        Raises:
            ValueError: The decay is out of range.
        """
        super().__init__(name=name)
        if not 0.0 < decay < 1.0:
            raise ValueError(f"train.ema_decay must be from 0 (off) to less than 1, got {decay}")
        self._decay = decay
        self.changes = Changes()
        # As an attribute the variables would be saved a second time.
        kept = tuple(variables)
        self._get_variables = lambda: kept
        self.shadows = [tf.Variable(v.read_value(), trainable=False, name="ema") for v in variables]

    def _pairs(self) -> Iterator[tuple[tf.Variable, tf.Variable]]:
        return zip(self.shadows, self._get_variables(), strict=True)

    def reset(self) -> None:
        """Sets the averages to the variables' current values, for example after initial weights were loaded; eager."""
        for shadow, variable in self._pairs():
            shadow.assign(variable.read_value())

    def update(self, num_applied: tf.Tensor, *, is_applied: tf.Tensor | None = None) -> None:
        """Moves the averages after an applied update; graph, replica context.

        Args:
            num_applied: Integer scalar, number of updates applied so far, including this one.
            is_applied: Bool scalar; where it is false, no average changes. None = the update was applied.
        """
        n = tf.cast(num_applied, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + n) / (10.0 + n))
        if is_applied is not None:
            rate = tf.where(is_applied, rate, 0.0)

        def apply(strategy: tf.distribute.Strategy, rate: tf.Tensor) -> None:
            for shadow, variable in self._pairs():
                strategy.extended.update(
                    shadow, lambda s, v, r: s.assign_sub((s - v) * r), args=(variable, rate), group=False
                )

        tf.distribute.get_replica_context().merge_call(apply, args=(rate,))

    def _swap(self) -> None:
        for shadow, variable in self._pairs():
            value = variable.read_value()
            variable.assign(shadow.read_value())
            shadow.assign(value)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the averages into the model and restores the exact weights on exit; eager."""
        self.changes.begin()
        self._swap()
        try:
            yield
        finally:
            self._swap()
            self.changes.end()
