"""Trains the CTC head at a multiple of the schedule's learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from engine.training.fused_adam import FusedAdam


class HeadLearningRateAdam(FusedAdam):
    """Updates and decays the head's variables at a multiple of the learning rate.

    A second optimizer would not do: the schedule must advance for the encoder while it is frozen. `learning_rate` is
    the schedule's.
    """

    def __init__(self, *args: Any, head_variables: Sequence[tf.Variable], head_factor: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_factor = head_factor
        self._head_keys = frozenset(self._var_key(variable) for variable in head_variables)

    def _rate_of(self, variable: tf.Variable) -> tf.Tensor:
        rate = super()._rate_of(variable)
        return rate * self._head_factor if self._var_key(variable) in self._head_keys else rate
