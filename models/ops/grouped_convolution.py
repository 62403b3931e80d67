"""The positional convolution's arithmetic where oneDNN's own gradient of the kernel is slow: on CPUs.

That gradient runs at a fifth of the rate of a matrix product there (docs/results/0040). As products over blocks of
frames it has 3 % more to add and is several times as fast.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Frames that share a window. The product's other side grows with them, what is added for nothing as well.
_BLOCK = 4


def grouped_convolution(x: tf.Tensor, kernel: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """Convolution over time of each group of channels with its own filters, no padding.

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
            with tf.name_scope("positional_convolution"):  # profiles go by names
                to_x = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x[:, tf.newaxis]), filter=narrow[tf.newaxis],
                    out_backprop=upstream[:, tf.newaxis], strides=[1, 1, 1, 1], padding="VALID",
                )  # fmt: skip
                return tf.squeeze(to_x, 1), kernel_gradient(x, upstream, num_groups=num_groups)

        return tf.nn.conv1d(x, narrow, stride=1, padding="VALID"), gradient

    return compute(x, kernel)


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """The gradient of `grouped_convolution` for its kernel.

    sum over b, f of x[b, f + k, c] * upstream[b, f, o]: a block of Q frames f needs one window of K + Q - 1 positions
    of x. The product of all windows with all blocks has, for each q of the block, the K taps as a slice of its own;
    the Q slices are added. A group at a time, so that windows and product stay in the cache.

    Args:
        x: [B, F + K - 1, D].
        upstream: [B, F, D], same dtype.
        num_groups: Divides D.

    Returns:
        float32 [K, D / num_groups, D].
    """
    num_rows, num_frames, size = tf.shape(upstream)[0], tf.shape(upstream)[1], upstream.shape[-1]
    channels = size // num_groups
    kernel_size = tf.shape(x)[1] - num_frames + 1
    num_blocks = -(-num_frames // _BLOCK)
    # Blocks under a window.
    width = -(-(kernel_size + _BLOCK - 1) // _BLOCK)

    def to_blocks(tensor: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """[B, N, D] to [groups, B, count, Q * C], with zeros where the last block has no frames."""
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
