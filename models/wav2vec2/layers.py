"""Layers that the whole network shares: projection, layer norm, activation. All variables are born in `__init__`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tf_keras

from models.ops import fused


def sequence_mask(lengths: tf.Tensor, num_positions: int | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns [B, N]: 1 before each row's length, 0 from there on."""
    return tf.sequence_mask(lengths, num_positions, dtype=dtype)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Exact (erf) GELU, Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415; the tanh form is another function."""
    return tf.nn.gelu(x, approximate=False)


class Projection(tf_keras.layers.Layer):
    """x W + b over the last axis."""

    def __init__(
        self,
        *,
        input_size: int,
        output_size: int,
        name: str,
        dtype: str | tf_keras.mixed_precision.Policy,
        stddev: float = 0.02,
        initializer: str | None = None,
    ) -> None:
        """Makes kernel [input_size, output_size] and bias [output_size].

        Args:
            input_size: Size of the last axis of the input.
            output_size: Size of the last axis of the output.
            name: Prefix of the variables' names.
            dtype: Policy; under a mixed one the variables stay float32.
            stddev: Standard deviation of the fresh kernel (truncated normal).
            initializer: Keras name that replaces the truncated normal.
        """
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._output_size = output_size
        self.kernel = self.add_weight(
            name=f"{name}/kernel",
            shape=(input_size, output_size),
            initializer=initializer or tf_keras.initializers.TruncatedNormal(stddev=stddev),
        )
        self.bias = self.add_weight(name=f"{name}/bias", shape=(output_size,), initializer="zeros")
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Keeps the kernel in the dtype of the product: see `Wav2Vec2ForCTC.fix_weights`."""
        self._fixed_kernel = tf.cast(self.kernel, self.compute_dtype)

    def call(self, x: tf.Tensor, *, activation: Callable[[tf.Tensor], tf.Tensor] | None = None) -> tf.Tensor:
        """Maps [..., input_size] to [..., output_size]; an activation right behind the bias joins its kernel."""
        # One flat matrix product: broadcasting a 2-D kernel over a batch would run a slower batched kernel.
        shape = tf.shape(x)
        kernel = self.kernel if self._fixed_kernel is None else self._fixed_kernel
        flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
        flat = tf.nn.bias_add(flat, self.bias)
        if activation is not None:
            flat = activation(flat)
        result = tf.reshape(flat, tf.concat([shape[:-1], [self._output_size]], axis=0))
        result.set_shape(x.shape[:-1] + [self._output_size])
        return result


class LayerNorm(tf_keras.layers.Layer):
    """Layer normalization over the last axis, always computed in float32 (Ba et al., https://arxiv.org/abs/1607.06450)."""

    def __init__(self, *, size: int, epsilon: float, name: str) -> None:
        """Makes scale and offset [size]; the variables and the arithmetic are float32 under every policy."""
        super().__init__(name=name.replace("/", "_"), dtype="float32", autocast=False)
        self._epsilon = epsilon
        self.scale = self.add_weight(name=f"{name}/layer_norm/scale", shape=(size,), initializer="ones")
        self.offset = self.add_weight(name=f"{name}/layer_norm/offset", shape=(size,), initializer="zeros")

    def call(self, x: tf.Tensor, *, as_region: bool = False) -> tf.Tensor:
        """Normalizes [..., size]; the result has x's dtype."""
        if as_region:
            scale, offset = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.offset)
            return fused.layer_norm(x, scale, offset, epsilon=self._epsilon)
        wide = tf.cast(x, tf.float32)
        mean = tf.reduce_mean(wide, axis=-1, keepdims=True)
        centred = wide - mean
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return tf.cast(centred * (tf.math.rsqrt(variance + self._epsilon) * self.scale) + self.offset, x.dtype)
