"""Adam and AdamW by PyTorch's rule, in one kernel a variable that reads and writes each number once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


class FusedAdam(tf_keras.optimizers.Adam):
    """Updates as `torch.optim.Adam` does, and as `torch.optim.AdamW` where it is given a weight decay.

    Each variable counts its own updates, and its bias correction follows that count: a variable that was left out of
    `apply_gradients` starts as if training had just begun. Epsilon is added after bias correction:

        variable *= 1 - rate * weight_decay
        variable -= rate / (1 - beta_1^t) * m / (sqrt(v) / sqrt(1 - beta_2^t) + epsilon)

    Slots and schedules are Keras's. Keras writes the update as ten kernels, each of which reads and writes whole
    variables: of a hundred million weights that is several gigabytes.

    Attributes:
        steps: int64 variable, the applied updates of each variable, in the order of `build`. Part of the checkpoint,
            not of `variables`, which are the schedule's count and the slots.
    """

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes the slots and the counts; in `strategy.scope()`, see `engine.training.optimizer.build_optimizer`."""
        is_built = getattr(self, "_built", False)
        super().build(var_list)
        if not is_built:
            # One vector, not one scalar a variable: it is counted up by one operation.
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
            # One factor, as PyTorch has it: another order of the same products rounds the weights elsewhere.
            variable.assign(variable * (1.0 - rate * self.weight_decay))
        # The kernel knows epsilon before bias correction, and takes the betas' powers, of which 1 - power would be off
        # by 1e-5 in the first steps. So it is told that there is no bias, and gets what amounts to PyTorch's rule.
        root = tf.sqrt(_bias_correction(self.beta_2, step))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=rate * root / _bias_correction(self.beta_1, step),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon * root,
            grad=tf.convert_to_tensor(gradient),
        )

    def _rate_of(self, variable: tf.Variable) -> tf.Tensor:
        """The learning rate of a variable in this update, a float32 scalar."""
        return tf.cast(self.learning_rate, tf.float32)

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        """Does nothing: `update_step` decays."""

    def _distributed_apply_gradients_fn(
        self,
        distribution: tf.distribute.Strategy,
        grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]],
        **kwargs: Any,
    ) -> tf.Tensor:
        # Keras has dropped the variables without a gradient by now, as PyTorch does.
        is_updated = np.zeros(self.steps.shape, np.int64)
        for _, variable in grads_and_vars:
            is_updated[self._index_dict[self._var_key(variable)]] = 1
        self.steps.assign_add(is_updated)
        return super()._distributed_apply_gradients_fn(distribution, grads_and_vars, **kwargs)


def _bias_correction(beta: float, step: tf.Tensor) -> tf.Tensor:
    """Returns 1 - beta^step to the last digits, where the difference of the two would have lost half of them."""
    beta = float(np.float32(beta))  # as the kernel reads it
    return -tf.math.expm1(step * math.log(beta)) if beta > 0.0 else tf.ones_like(step)
