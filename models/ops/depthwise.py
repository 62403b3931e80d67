"""Depthwise convolution over time whose kernel gradient is fast on CPUs."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from models.ops.fused import called


def depthwise_convolution(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves each channel of x [B, F + K - 1, D] with its own filter of kernel [K, D], without padding."""
    found = tf.nn.depthwise_conv2d(x[:, tf.newaxis], kernel[tf.newaxis, :, :, tf.newaxis], [1, 1, 1, 1], "VALID")
    return tf.squeeze(found, 1)


@called
def fast_depthwise_convolution(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Computes `depthwise_convolution`, and the kernel's gradient as a convolution of its own.

    TensorFlow's kernel gradient takes thirty times as long as this on a CPU (docs/decisions/0022).

    Args:
        x: float32 [B, F + K - 1, D].
        kernel: float32 [K, D].
    """

    @tf.custom_gradient
    def compute(
        x: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            to_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x[:, tf.newaxis]), filter=kernel[tf.newaxis, :, :, tf.newaxis],
                out_backprop=upstream[:, tf.newaxis], strides=[1, 1, 1, 1], padding="VALID",
            )  # fmt: skip
            return tf.squeeze(to_x, 1), kernel_gradient(x, upstream)

        return depthwise_convolution(x, kernel), gradient

    return compute(x, kernel)


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of `depthwise_convolution` with respect to its kernel, [K, D].

    It is the sum over rows b and frames f of x[b, f + k, d] * upstream[b, f, d]: a depthwise convolution whose filter
    is the upstream gradient, with the rows as further channels.

    Args:
        x: Input of the convolution, [B, F + K - 1, D].
        upstream: Gradient of its output, [B, F, D].
    """
    # Not the static width: models of several widths in a process share one trace.
    num_rows, size = tf.shape(x)[0], tf.shape(x)[2]

    def as_channels(tensor: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.transpose(tensor, [1, 0, 2]), [1, tf.shape(tensor)[1], num_rows * size])

    found = depthwise_convolution(as_channels(x), as_channels(upstream)[0])
    return tf.reduce_sum(tf.reshape(found, [-1, num_rows, size]), axis=1)
