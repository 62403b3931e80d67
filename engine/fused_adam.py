"""Adam whose update of a variable is one kernel that reads and writes each number once."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


class _FusedUpdate:
    """Mixed into Adam or AdamW of Keras: the same arithmetic as theirs, without a pass over memory for each operation.

    Keras writes the update as ten kernels, each of which reads and writes whole variables: of a hundred million
    weights that is several gigabytes. Slots, checkpoints and schedules stay Keras's.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable; graph, update context."""
        if isinstance(gradient, tf.IndexedSlices) or self.amsgrad:  # type: ignore[attr-defined]
            super().update_step(gradient, variable)  # type: ignore[misc]
            return
        index = self._index_dict[self._var_key(variable)]  # type: ignore[attr-defined]
        dtype = variable.dtype
        beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))  # type: ignore[attr-defined]
        step = tf.cast(self.iterations + 1, dtype)  # type: ignore[attr-defined]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,  # type: ignore[attr-defined]
            v=self._velocities[index].handle,  # type: ignore[attr-defined]
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, dtype),  # type: ignore[attr-defined]
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),  # type: ignore[attr-defined]
            grad=tf.cast(gradient, dtype),
        )


class FusedAdam(_FusedUpdate, tf_keras.optimizers.Adam):
    """`tf_keras.optimizers.Adam` in one kernel a variable."""


class FusedAdamW(_FusedUpdate, tf_keras.optimizers.AdamW):
    """`tf_keras.optimizers.AdamW` in one kernel a variable, after its decay."""
