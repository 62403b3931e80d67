"""Grouped convolutions over time that are faster than the libraries' own: on CPUs in the gradient, on GPUs in all.

oneDNN's gradient for the kernel runs at a fifth of the rate of a matrix product (docs/results/0140), and cuDNN takes 16
ms for the bfloat16 convolution of eight rows, more than all other layers together (docs/results/0170). Products over
blocks of frames do 3 to 6 % more arithmetic and are many times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Frames that share a window. More make the product larger and faster, but waste more arithmetic.
_BLOCK = 4
_BLOCK_ON_GPU = 8


def grouped_convolution(x: tf.Tensor, kernel: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """Convolves each group of channels with its own filters over time, without padding.

    Args:
        x: [B, F + K - 1, D].
        kernel: float32 [K, D / num_groups, D]; used in x's dtype, its gradient is summed in float32.
        num_groups: Divides D.

    Returns:
        [B, F, D], dtype of x.
    """

    @tf.custom_gradient
    def compute(
        x: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        narrow = tf.cast(kernel, x.dtype)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.name_scope("positional_convolution"):  # so that profiles can attribute it
                to_x = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x[:, tf.newaxis]), filter=narrow[tf.newaxis],
                    out_backprop=upstream[:, tf.newaxis], strides=[1, 1, 1, 1], padding="VALID",
                )  # fmt: skip
                return tf.squeeze(to_x, 1), kernel_gradient(x, upstream, num_groups=num_groups)

        return tf.nn.conv1d(x, narrow, stride=1, padding="VALID"), gradient

    return compute(x, kernel)


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """Returns the gradient of `grouped_convolution` with respect to its kernel.

    The gradient is the sum over b and f of x[b, f + k, c] * upstream[b, f, o]. A block of Q frames needs one window of
    K + Q - 1 positions of x. The product of all windows with all blocks holds the K taps of each of the Q frames of a
    block as a slice; the sum of the Q slices is the result. Groups run one after another, so that windows and products
    stay in the cache.

    Args:
        x: Input of the convolution, [B, F + K - 1, D].
        upstream: Gradient of its output, [B, F, D], same dtype.
        num_groups: Divides D.

    Returns:
        float32 [K, D / num_groups, D].
    """
    num_rows, num_frames, size = tf.shape(upstream)[0], tf.shape(upstream)[1], upstream.shape[-1]
    channels = size // num_groups
    kernel_size = tf.shape(x)[1] - num_frames + 1
    num_blocks = -(-num_frames // _BLOCK)
    width = -(-(kernel_size + _BLOCK - 1) // _BLOCK)  # blocks that a window covers

    def to_blocks(tensor: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Reshapes [B, N, D] to [groups, B, count, Q * C], with zeros where the last block has no frames."""
        tensor = tf.pad(tensor, [[0, 0], [0, count * _BLOCK - tf.shape(tensor)[1]], [0, 0]])
        tensor = tf.reshape(tensor, [num_rows, count, _BLOCK, num_groups, channels])
        return tf.reshape(tf.transpose(tensor, [3, 0, 1, 2, 4]), [num_groups, num_rows, count, _BLOCK * channels])

    def of_group(group: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        positions, frames = group
        hops = tf.range(width)[tf.newaxis, :] + tf.range(num_blocks)[:, tf.newaxis]
        windows = tf.reshape(tf.gather(positions, hops, axis=1), [num_rows * num_blocks, width * _BLOCK * channels])
        frames = tf.reshape(frames, [num_rows * num_blocks, _BLOCK * channels])
        product = tf.matmul(windows, frames, transpose_a=True)
        product = tf.reshape(product, [width * _BLOCK, channels, _BLOCK, channels])
        return tf.add_n([tf.cast(product[q : q + kernel_size, :, q], tf.float32) for q in range(_BLOCK)])

    groups = to_blocks(x, num_blocks + width - 1), to_blocks(upstream, num_blocks)
    found = tf.map_fn(of_group, groups, fn_output_signature=tf.float32, parallel_iterations=1)
    return tf.reshape(tf.transpose(found, [1, 2, 0, 3]), [kernel_size, channels, size])


def grouped_convolution_by_products(x: tf.Tensor, kernel: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """Computes `grouped_convolution` and its gradients as one matrix product for each group, with their sizes for GPUs.

    A block of Q frames needs one window of K + Q - 1 positions of x. The windows are multiplied with a matrix that
    holds the kernel Q times, each time one position further on. `models.ops.fused` has the same, compiled.
    """

    @tf.custom_gradient
    def compute(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        return products_forward(x, kernel, num_groups), lambda dy: products_backward(x, kernel, dy, num_groups)

    num_frames = None if x.shape[1] is None else x.shape[1] - kernel.shape[0] + 1
    return tf.ensure_shape(compute(x, tf.convert_to_tensor(kernel)), [x.shape[0], num_frames, kernel.shape[2]])


def products_forward(x: tf.Tensor, kernel: tf.Tensor, num_groups: int) -> tf.Tensor:
    """Returns the convolution, [B, F, D]."""
    x = tf.ensure_shape(x, [None, None, kernel.shape[1] * num_groups])
    return _convolve(x, _by_group(kernel, num_groups, x.dtype))


def products_backward(
    x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor, num_groups: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradients for x and kernel, given that of the result, [B, F, D]."""
    width, channels, size = kernel.shape
    x, upstream = tf.ensure_shape(x, [None, None, channels * num_groups]), tf.ensure_shape(upstream, [None, None, size])
    # The gradient for x is a convolution too, with the kernel turned round.
    turned = tf.transpose(tf.reverse(_by_group(kernel, num_groups, x.dtype), axis=[1]), [0, 1, 3, 2])
    to_x = _convolve(tf.pad(upstream, [[0, 0], [width - 1, width - 1], [0, 0]]), turned)
    product = tf.matmul(_windows(x, width, num_groups), _blocks(upstream, num_groups), transpose_a=True)
    product = tf.reshape(product, [num_groups, -1, channels, _BLOCK_ON_GPU, size // num_groups])
    taps = [tf.cast(product[:, q : q + width, :, q], tf.float32) for q in range(_BLOCK_ON_GPU)]
    return to_x, tf.reshape(tf.transpose(tf.add_n(taps), [1, 2, 0, 3]), [width, channels, size])


def _by_group(kernel: tf.Tensor, num_groups: int, dtype: tf.DType) -> tf.Tensor:
    """Returns [K, C_in, groups * C_out] as [groups, K, C_in, C_out]."""
    width, channels, size = kernel.shape
    kernel = tf.reshape(tf.cast(kernel, dtype), [width, channels, num_groups, size // num_groups])
    return tf.transpose(kernel, [2, 0, 1, 3])


def _convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves x [B, F + K - 1, groups * C_in] with kernel [groups, K, C_in, C_out]: [B, F, groups * C_out]."""
    num_groups, width, channels, size = kernel.shape
    num_rows, num_frames = tf.shape(x)[0], tf.shape(x)[1] - width + 1
    windows = _windows(x, width, num_groups)
    positions = windows.shape[-1] // channels
    shifted = [tf.pad(kernel, [[0, 0], [q, positions - width - q], [0, 0], [0, 0]]) for q in range(_BLOCK_ON_GPU)]
    matrix = tf.reshape(tf.stack(shifted, axis=3), [num_groups, positions * channels, _BLOCK_ON_GPU * size])
    found = tf.reshape(tf.matmul(windows, matrix), [num_groups, num_rows, -1, size])
    return tf.reshape(tf.transpose(found, [1, 2, 0, 3]), [num_rows, -1, num_groups * size])[:, :num_frames]


def _blocks(x: tf.Tensor, num_groups: int) -> tf.Tensor:
    """Reshapes [B, F, groups * C] to blocks of frames, [groups, B * blocks, Q * C], with zeros past the last frame."""
    num_rows, num_blocks = tf.shape(x)[0], -(-tf.shape(x)[1] // _BLOCK_ON_GPU)
    channels = x.shape[-1] // num_groups
    x = tf.pad(x, [[0, 0], [0, num_blocks * _BLOCK_ON_GPU - tf.shape(x)[1]], [0, 0]])
    x = tf.transpose(tf.reshape(x, [num_rows * num_blocks, _BLOCK_ON_GPU, num_groups, channels]), [2, 0, 1, 3])
    return tf.reshape(x, [num_groups, num_rows * num_blocks, _BLOCK_ON_GPU * channels])


def _windows(x: tf.Tensor, width: int, num_groups: int) -> tf.Tensor:
    """Returns what of x [B, F + K - 1, groups * C] lies under each block of frames.

    The result has shape [groups, B * blocks, W * C]. W is K + Q - 1, rounded up to whole blocks.
    """
    hops = -(-(width + _BLOCK_ON_GPU - 1) // _BLOCK_ON_GPU)
    num_rows, num_blocks = tf.shape(x)[0], -(-(tf.shape(x)[1] - width + 1) // _BLOCK_ON_GPU)
    needed = (num_blocks + hops - 1) * _BLOCK_ON_GPU
    steps = _blocks(tf.pad(x, [[0, 0], [0, needed - tf.shape(x)[1]], [0, 0]]), num_groups)
    size = steps.shape[-1]
    # One gather, not a concatenation of slices: on a GPU XLA emits one of 17 operands without vectors, and asks for
    # each number from which of them it comes. That took 3.3 ms an update on an H200, ten times what the bytes take.
    first = tf.range(num_groups * num_rows)[:, tf.newaxis, tf.newaxis] * (num_blocks + hops - 1)
    covered = first + tf.range(num_blocks)[:, tf.newaxis] + tf.range(hops)
    joined = tf.gather(tf.reshape(steps, [-1, size]), covered)
    return tf.reshape(joined, [num_groups, num_rows * num_blocks, hops * size])
