"""A learning rate of its own for the CTC head: that of the schedule, times a factor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from engine.fused_adam import FusedAdam, FusedAdamW


class _HeadRate:
    """Mixed into an optimizer of Keras: updates and decays some variables at a multiple of the learning rate.

    One optimizer and not two, because the schedule must go on for the encoder while it is frozen. Keras reads
    `self.learning_rate` anew for each variable while it builds the graph: here it is the rate of that variable. From
    outside the property is the schedule's rate.
    """

    _factor = 1.0

    def __init__(self, *args: Any, head_variables: Sequence[tf.Variable], head_factor: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_factor = head_factor
        self._head_keys = frozenset(self._var_key(variable) for variable in head_variables)  # type: ignore[attr-defined]

    @property
    def learning_rate(self) -> Any:
        rate = super().learning_rate  # type: ignore[misc]
        return rate if self._factor == 1.0 else rate * self._factor

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        tf_keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        with self._rate_of(variable):
            super().update_step(gradient, variable)  # type: ignore[misc]

    def _use_weight_decay(self, variable: tf.Variable) -> bool:
        # What Keras asks right before it reads the rate; the next variable, or `update_step`, sets its own.
        self._factor = self._factor_of(variable)
        return super()._use_weight_decay(variable)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        super()._apply_weight_decay(variables)  # type: ignore[misc]
        self._factor = 1.0

    def _factor_of(self, variable: tf.Variable) -> float:
        return self._head_factor if self._var_key(variable) in self._head_keys else 1.0  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _rate_of(self, variable: tf.Variable) -> Iterator[None]:
        self._factor = self._factor_of(variable)
        try:
            yield
        finally:
            self._factor = 1.0


class HeadRateAdam(_HeadRate, FusedAdam):
    """Adam whose head has its own learning rate."""


class HeadRateAdamW(_HeadRate, FusedAdamW):
    """AdamW whose head has its own learning rate, in the decay too."""
