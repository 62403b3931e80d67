"""Implements PyTorch's Adam and AdamW with one fused kernel per variable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


class FusedAdam(tf_keras.optimizers.Adam):
    """Updates like `torch.optim.Adam`, or like `torch.optim.AdamW` if given a weight decay.

    Bias correction follows each variable's own number of updates: a variable that joins `apply_gradients` late starts
    as if training had just begun. Epsilon is added after bias correction:

        variable *= 1 - rate * weight_decay
        variable -= rate / (1 - beta_1^t) * m / (sqrt(v) / sqrt(1 - beta_2^t) + epsilon)

    Slots and schedules are Keras's. Keras's own update consists of ten kernels that each read and write whole
    variables, which is several gigabytes for a hundred million weights.

    Attributes:
        steps: int64 variable [number of variables], applied updates of each variable in the order of `build`. Part of
            the checkpoint but not of `variables`, which are the schedule's count and the slots.
    """

    _is_applied: tf.Tensor | None = None  # of the update that is traced; None = it is applied in any case

    def apply_gradients_if(self, is_applied: tf.Tensor, pairs: Sequence[tuple[tf.Tensor, tf.Variable]]) -> None:
        """Applies reduced gradients if a bool scalar is true, else changes no bit of the state; graph.

        There is no branch: XLA copies every variable that one changes, weights and moments, so that it can keep them.
        """
        self._is_applied = is_applied
        try:
            self.apply_gradients(pairs, skip_gradients_aggregation=True)
        finally:
            self._is_applied = None

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates slots and counts; call in `strategy.scope()`, see `engine.training.optimizer.build_optimizer`."""
        is_built = getattr(self, "_built", False)
        super().build(var_list)
        if not is_built:
            # One vector instead of a scalar per variable: one operation increments it.
            self.steps = tf.Variable(
                tf.zeros([len(var_list)], tf.int64),
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="steps",
            )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable, its weight decay included; graph, update context."""
        index = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.steps[index], tf.float32)
        rate = self._rate_of(variable)
        if self.weight_decay and self._use_weight_decay(variable):
            # One factor, as in PyTorch: another order of the products rounds differently.
            variable.assign(variable * self._if_applied(1.0 - rate * self.weight_decay, 1.0))
        # The kernel adds epsilon before bias correction, and computes 1 - power, which is off by 1e-5 in the first
        # steps. So its own correction is turned off, and rate and epsilon are scaled to give PyTorch's rule.
        root = tf.sqrt(_bias_correction(self.beta_2, step))
        # A decay of 1 and a gradient of 0 leave a moment as it is, a rate of 0 the variable.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=self._if_applied(rate * root / _bias_correction(self.beta_1, step), 0.0),
            beta1=self._if_applied(self.beta_1, 1.0),
            beta2=self._if_applied(self.beta_2, 1.0),
            epsilon=self._if_applied(self.epsilon * root, 1.0),
            grad=self._if_applied(tf.convert_to_tensor(gradient), 0.0),
        )

    def _if_applied(self, value: tf.Tensor | float, otherwise: tf.Tensor | float) -> Any:
        """Returns `value` in an update that is applied, else `otherwise`."""
        return value if self._is_applied is None else tf.where(self._is_applied, value, otherwise)

    def _compute_current_learning_rate(self) -> None:
        before = getattr(self, "_current_learning_rate", None)
        if self._is_applied is None or before is None:
            super()._compute_current_learning_rate()
            return
        rate = before.read_value()
        super()._compute_current_learning_rate()
        before.assign(tf.where(self._is_applied, before.read_value(), rate))

    def _rate_of(self, variable: tf.Variable) -> tf.Tensor:
        """Returns the learning rate of a variable in this update, a float32 scalar."""
        return tf.cast(self.learning_rate, tf.float32)

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        """Does nothing: `update_step` applies weight decay."""

    def _distributed_apply_gradients_fn(
        self,
        distribution: tf.distribute.Strategy,
        grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]],
        **kwargs: Any,
    ) -> tf.Tensor:
        # Keras has already dropped the variables without a gradient, as PyTorch does.
        is_updated = np.zeros(self.steps.shape, np.int64)
        for _, variable in grads_and_vars:
            is_updated[self._index_dict[self._var_key(variable)]] = 1
        self.steps.assign_add(self._if_applied(tf.constant(is_updated), tf.zeros_like(is_updated)))
        count = super()._distributed_apply_gradients_fn(distribution, grads_and_vars, **kwargs)
        if self._is_applied is not None:
            self.iterations.assign_sub(tf.cast(~self._is_applied, self.iterations.dtype))
        return count


def _bias_correction(beta: float, step: tf.Tensor) -> tf.Tensor:
    """Returns 1 - beta^step to full precision; the plain difference would lose half of the digits."""
    beta = float(np.float32(beta))  # the kernel's value
    return -tf.math.expm1(step * math.log(beta)) if beta > 0.0 else tf.ones_like(step)
