"""Convolutional position embedding: what a frame's neighbors are tells the transformer where it stands."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import PLAIN, Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, choose_operations

# Added to variances in the norms between the convolutions of a stack. The layer_norm_eps of published configs applies
# elsewhere only.
_EPSILON = 1e-5


def _convolve(
    x: tf.Tensor, kernel: tf.Tensor, random: UpdateRandom | None, *, num_groups: int, operations: Operations
) -> tf.Tensor:
    """Convolves each group of channels of [B, F, D] with kernel [K, D / num_groups, D]; the result is as long as x."""
    output_dtype, kernel_size = x.dtype, kernel.shape[0]
    if output_dtype == tf.float16 and not tf.config.list_logical_devices("GPU"):
        # TensorFlow's CPU kernel for the gradient of a grouped convolution fails in float16.
        x = tf.cast(x, tf.float32)
    # An even kernel padded by half on both sides makes one frame too many; the published models drop the last.
    left = kernel_size // 2
    x = tf.pad(x, [[0, 0], [left, kernel_size - 1 - left], [0, 0]])
    chosen = PLAIN if output_dtype == tf.float16 else operations
    return tf.cast(chosen.grouped_convolution(x, kernel, random, num_groups=num_groups), output_dtype)


def _convolution_dtype(dtype: str) -> str:
    """Returns the dtype of a fixed kernel: under float16 the convolution may run in float32, see `_convolve`."""
    return "float32" if dtype == "float16" else dtype


class PositionalConvolution(tf_keras.layers.Layer):
    """Computes a relative position embedding with a grouped convolution over frames.

    The kernel is weight-normalized per kernel position (Salimans and Kingma, https://arxiv.org/abs/1602.07868):
    w[k] = g[k] * v[k] / ||v[k]||.
    """

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Makes v [K, D / groups, D], g [K, 1, 1] and bias [D]."""
        super().__init__(name="positional_convolution", dtype=dtype)
        self._kernel_size = config.pos_conv_kernel
        self._num_groups = config.pos_conv_groups
        self._operations = choose_operations(config)
        group_size = config.hidden_size // config.pos_conv_groups
        # v stays float32 under every policy: its norm would lose digits in half precision.
        stddev = (4.0 / (config.pos_conv_kernel * config.hidden_size)) ** 0.5
        name = "encoder/pos_conv"
        self.kernel_v = self.add_weight(
            name=f"{name}/kernel_v",
            shape=(config.pos_conv_kernel, group_size, config.hidden_size),
            initializer=tf_keras.initializers.RandomNormal(stddev=stddev),
            experimental_autocast=False,
        )
        # With g at the expected norm of v the kernel starts as v itself, as in the published models.
        self.kernel_g = self.add_weight(
            name=f"{name}/kernel_g",
            shape=(config.pos_conv_kernel, 1, 1),
            initializer=tf_keras.initializers.Constant(stddev * (group_size * config.hidden_size) ** 0.5),
            experimental_autocast=False,
        )
        self.bias = self.add_weight(name=f"{name}/bias", shape=(config.hidden_size,), initializer="zeros")
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Caches the normalized kernel, for `Wav2Vec2ForCTC.fix_weights`."""
        self._fixed_kernel = tf.cast(self._normalized_kernel(), _convolution_dtype(self.compute_dtype))

    def _normalized_kernel(self) -> tf.Tensor:
        norm = tf.sqrt(tf.reduce_sum(tf.square(self.kernel_v), axis=[1, 2], keepdims=True))
        return self.kernel_g * self.kernel_v / norm

    def call(self, x: tf.Tensor, random: UpdateRandom | None = None, valid: tf.Tensor | None = None) -> tf.Tensor:
        """Maps [B, F, D], with zeros past each row's length, to the position embedding [B, F, D].

        Args:
            x: [B, F, D].
            random: Random numbers of the update; None in inference.
            valid: Ignored; `PositionalConvolutionStack` needs it.
        """
        del valid
        kernel = self._normalized_kernel() if self._fixed_kernel is None else self._fixed_kernel
        x = _convolve(x, kernel, random, num_groups=self._num_groups, operations=self._operations)
        return self._operations.gelu(tf.nn.bias_add(x, self.bias), random)


class PositionalConvolutionStack(tf_keras.layers.Layer):
    """Computes a position embedding with several narrow convolutions, each followed by a layer norm and a GELU.

    data2vec (Baevski et al., https://arxiv.org/abs/2202.03555); the norms have neither scale nor offset.
    """

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Makes kernel [K, D / groups, D] and bias [D] of each convolution."""
        super().__init__(name="positional_convolution", dtype=dtype)
        self._num_groups = config.pos_conv_groups
        self._operations = choose_operations(config)
        size = config.hidden_size
        self.kernels, self.biases = [], []
        for i in range(config.pos_conv_depth):
            name = f"encoder/pos_conv/{i}"
            shape = (config.pos_conv_kernel, size // config.pos_conv_groups, size)
            self.kernels.append(self.add_weight(name=f"{name}/kernel", shape=shape, initializer="he_normal"))
            self.biases.append(self.add_weight(name=f"{name}/bias", shape=(size,), initializer="zeros"))
        self._fixed_kernels: list[tf.Tensor] = []

    def fix_weights(self) -> None:
        """Caches the kernels in the dtype of the convolutions, for `Wav2Vec2ForCTC.fix_weights`."""
        dtype = _convolution_dtype(self.compute_dtype)
        self._fixed_kernels = [tf.cast(kernel, dtype) for kernel in self.kernels]

    def call(self, x: tf.Tensor, random: UpdateRandom | None, valid: tf.Tensor) -> tf.Tensor:
        """Maps [B, F, D], with zeros past each row's length, to the position embedding [B, F, D].

        Args:
            x: [B, F, D].
            random: Random numbers of the update; None in inference.
            valid: [B, F, 1], 1 before each row's length and 0 from there on. The norms and biases fill the padding, so
                each convolution clears it again.
        """
        scale, offset = tf.ones(x.shape[-1:]), tf.zeros(x.shape[-1:])
        for i, (kernel, bias) in enumerate(zip(self._fixed_kernels or self.kernels, self.biases, strict=True)):
            x = x if i == 0 else x * valid
            x = _convolve(x, kernel, random, num_groups=self._num_groups, operations=self._operations)
            x = tf.nn.bias_add(x, bias)
            x = self._operations.layer_norm(x, random, scale=scale, offset=offset, epsilon=_EPSILON)
            x = self._operations.gelu(x, random)
        return x
