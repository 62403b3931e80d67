"""Maps raw samples to feature frames with the stack of strided convolutions at the bottom of wav2vec 2.0."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from models.ops.operations import PLAIN, FusedOperations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.filterbank import gabor_kernel
from models.wav2vec2.layers import Dtype, LayerNorm, sequence_mask

# Added to variances in the norms of the convolutions. The layer_norm_eps of published configs applies elsewhere only.
_EPSILON = 1e-5


def output_lengths(config: Wav2Vec2Config, num_samples: tf.Tensor) -> tf.Tensor:
    """Returns int32 [B], the frames of logits of rows of `num_samples` samples (0 for rows too short for one frame)."""
    lengths = tf.cast(num_samples, tf.int32)
    for step in config.frame_steps:
        lengths = shortened_lengths(lengths, step)
    return lengths


def shortened_lengths(lengths: tf.Tensor, step: tuple[int, int, int]) -> tf.Tensor:
    """Returns int32 [...], the positions that a step of (kernel, stride, padding) makes of `lengths` positions."""
    kernel, stride, padding = step
    found = tf.maximum(tf.math.floordiv(lengths + (2 * padding - kernel), stride) + 1, 0)
    return tf.where(lengths > 0, found, 0) if padding else found  # padding alone makes no frame


def cut_windows(x: tf.Tensor, kernel_size: int, stride: int) -> tf.Tensor:
    """Returns the values [B, N', kernel_size * C] of x [B, N, C] under a kernel at each of its positions."""
    hops = -(-kernel_size // stride)
    num_rows, num_positions = tf.shape(x)[0], shortened_lengths(tf.shape(x)[1], (kernel_size, stride, 0))
    channels = x.shape[-1]
    width = stride * channels
    needed = (num_positions + hops - 1) * stride
    x = tf.pad(x, [[0, 0], [0, tf.maximum(needed - tf.shape(x)[1], 0)], [0, 0]])[:, :needed]
    steps = tf.reshape(x, [num_rows, num_positions + hops - 1, width])
    shifted = [steps[:, i : i + num_positions] for i in range(hops)]
    return tf.concat(shifted, axis=-1)[:, :, : kernel_size * channels]


class ConvolutionLayer(tf_keras.layers.Layer):
    """Runs one convolution, its norm (if any) and a GELU."""

    def __init__(
        self,
        *,
        input_size: int,
        output_size: int,
        kernel_size: int,
        stride: int,
        norm: str,
        use_bias: bool,
        name: str,
        initializer: str | tf_keras.initializers.Initializer = "he_normal",
        dtype: Dtype,
        is_fused: bool = False,
    ) -> None:
        """Makes the variables.

        Args:
            input_size: Input channels.
            output_size: Output channels.
            kernel_size: Kernel width in input positions.
            stride: Stride in input positions.
            norm: "group" (each channel over the row's valid positions), "layer" or "none".
            use_bias: Whether the convolution has a bias.
            name: Prefix of the variables' names.
            initializer: Initializer of the kernel.
            dtype: Keras policy.
            is_fused: Whether norm and GELU run as `models.ops.fused`, in inference as well.
        """
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._kernel_size = kernel_size
        self._stride = stride
        self._norm = norm
        self._is_fused = is_fused
        self._operations = FusedOperations(in_inference=True) if is_fused else PLAIN
        self.kernel = self.add_weight(
            name=f"{name}/kernel", shape=(kernel_size, input_size, output_size), initializer=initializer
        )
        self._fixed_kernel: tf.Tensor | None = None
        self.bias = None
        if use_bias:
            self.bias = self.add_weight(name=f"{name}/bias", shape=(output_size,), initializer="zeros")
        if norm == "layer":
            self.layer_norm = LayerNorm(size=output_size, epsilon=_EPSILON, name=name, operations=self._operations)
        elif norm == "group":
            self.group_scale = self.add_weight(
                name=f"{name}/group_norm/scale", shape=(output_size,), initializer="ones", experimental_autocast=False
            )
            self.group_offset = self.add_weight(
                name=f"{name}/group_norm/offset",
                shape=(output_size,),
                initializer="zeros",
                experimental_autocast=False,
            )

    def fix_weights(self) -> None:
        """Caches the kernel in the dtype of the convolution, for `Wav2Vec2ForCTC.fix_weights`."""
        self._fixed_kernel = tf.cast(self.kernel, self.compute_dtype)

    def call(self, x: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps [B, N, C_in] and valid lengths [B] to [B, N', C_out] and their lengths."""
        output_lengths = shortened_lengths(lengths, (self._kernel_size, self._stride, 0))
        if self._norm == "group" and self._is_fused:
            return self._operations.gelu(self._normalized_convolution(x, output_lengths), None), output_lengths
        kernel = self.kernel if self._fixed_kernel is None else self._fixed_kernel
        x = tf.nn.conv1d(x, kernel, stride=self._stride, padding="VALID")
        if self.bias is not None:
            x = tf.nn.bias_add(x, self.bias)
        if self._norm == "layer":
            x = self.layer_norm(x)
        elif self._norm == "group":
            x = self._masked_group_norm(x, output_lengths)
        return self._operations.gelu(x, None), output_lengths

    def _normalized_convolution(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Computes convolution and masked group norm of a few input channels [B, N, C_in] as one product per row.

        The output of the convolution is large (25 million numbers for 15 s of audio). Since the convolution is linear,
        the mean and variance of its output follow from the mean and covariance of its input windows of kernel_size
        samples. So the norm becomes part of the kernel, a different one for each row.
        """
        windows = cut_windows(x, self._kernel_size, self._stride)
        valid = sequence_mask(lengths, tf.shape(windows)[1], tf.float64)[:, :, tf.newaxis]
        # float64, because neighboring samples are nearly equal and float32 would lose the variance of their
        # differences. The products are small, about ten by ten.
        wide = tf.cast(windows, tf.float64)
        count = tf.cast(tf.maximum(lengths, 1), tf.float64)[:, tf.newaxis, tf.newaxis]
        mean = tf.reduce_sum(wide * valid, axis=1, keepdims=True) / count  # [B, 1, K]
        centered = (wide - mean) * valid
        covariance = tf.matmul(centered, centered, transpose_a=True) / count  # [B, K, K]
        kernel = tf.cast(tf.reshape(self.kernel, [1, -1, self.kernel.shape[-1]]), tf.float64)
        variance = tf.reduce_sum(tf.matmul(covariance, kernel) * kernel, axis=1, keepdims=True)  # [B, 1, C_out]
        scale = tf.math.rsqrt(variance + _EPSILON) * tf.cast(self.group_scale, tf.float64)
        offset = tf.cast(self.group_offset, tf.float64) - tf.matmul(mean, kernel) * scale
        # Add the offset as the last row of the kernel, with a constant one at the end of each window.
        joined = tf.concat([kernel * scale, offset], axis=1)
        ones = tf.ones_like(windows[:, :, :1])
        return tf.matmul(tf.concat([windows, ones], axis=-1), tf.cast(joined, x.dtype))

    def _masked_group_norm(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Normalizes each channel over the row's valid positions only.

        Statistics that include the padding make a row's features depend on the longest row of its batch. The published
        TensorFlow port does so, and its transcripts change with padding.
        """
        wide = tf.cast(x, tf.float32)
        valid = sequence_mask(lengths, tf.shape(x)[1], tf.float32)[:, :, tf.newaxis]
        count = tf.cast(tf.maximum(lengths, 1), tf.float32)[:, tf.newaxis, tf.newaxis]
        mean = tf.reduce_sum(wide * valid, axis=1, keepdims=True) / count
        centered = wide - mean
        variance = tf.reduce_sum(tf.square(centered) * valid, axis=1, keepdims=True) / count
        scale = tf.math.rsqrt(variance + _EPSILON) * self.group_scale
        return tf.cast(centered * scale + self.group_offset, x.dtype)


class FeatureEncoder(tf_keras.layers.Layer):
    """Maps a waveform [B, T] to features [B, F, C] with a stack of convolutions."""

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Makes the convolution layers of `config`."""
        super().__init__(name="feature_encoder", dtype=dtype)
        self.convolutions = []
        input_size = 1
        for i, output_size in enumerate(config.conv_dim):
            initializer = "he_normal"
            if i == 0 and config.conv_init == "gabor":
                initializer = tf_keras.initializers.Constant(gabor_kernel(config.conv_kernel[0], output_size))
            norm = "layer" if config.feature_norm == "layer" else ("group" if i == 0 else "none")
            self.convolutions.append(
                ConvolutionLayer(
                    input_size=input_size,
                    output_size=output_size,
                    kernel_size=config.conv_kernel[i],
                    stride=config.conv_stride[i],
                    norm=norm,
                    use_bias=config.conv_bias,
                    initializer=initializer,
                    name=f"feature_encoder/{i}",
                    dtype=dtype,
                    is_fused=config.uses_fused_ops,
                )
            )
            input_size = output_size

    def call(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps waveform [B, T] with valid lengths [B] to features [B, F, C] and frame counts int32 [B]."""
        x = tf.cast(waveform, self.compute_dtype)[:, :, tf.newaxis]
        lengths = tf.cast(lengths, tf.int32)
        for convolution in self.convolutions:
            x, lengths = convolution(x, lengths)
        return x, lengths
