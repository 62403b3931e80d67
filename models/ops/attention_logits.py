"""What attention's softmax reads: in what precision, and how the mask of padded keys comes into it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from models.ops.devices import on_cpu

_NUM_ZEROS = 4096


def softmax_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype that logits of `dtype` are given to tf.nn.softmax in.

    float32, because sums of up to thousands of exponentials lose a row's text in half precision. bfloat16 stays what it
    is where the kernel computes in float32 inside: rounded at the end, its probabilities are those of float32 bit for
    bit, and half as much memory is read and written.
    """
    return dtype if dtype == tf.bfloat16 and on_cpu() and _sums_in_float32() else tf.float32


def add_mask(logits: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    """Returns logits + key_bias in the dtype of the softmax."""
    dtype = softmax_dtype(logits.dtype)
    return tf.cast(logits, dtype) + tf.cast(key_bias, dtype)


def masked_logits(
    query: tf.Tensor, key: tf.Tensor, key_bias: tf.Tensor, *, add: Callable[..., tf.Tensor] = add_mask
) -> tf.Tensor:
    """query key^T + key_bias, ready for the softmax: folded where that is faster, else by `add`.

    Args:
        query: [B, H, F, D / H], scaled.
        key: Likewise, not scaled.
        key_bias: float32 [B, 1, 1, F].
        add: `add_mask`, or what stands for it.

    Returns:
        [B, H, F, F], dtype `softmax_dtype`.
    """
    if folds_mask(query.dtype):
        return folded_logits(query, key, key_bias)
    product = tf.matmul(query, key, transpose_b=True)
    # Told the rank again: a region's output has none, and TensorFlow's optimizer complains of such a softmax.
    return tf.ensure_shape(add(product, key_bias), product.shape)


def folds_mask(dtype: tf.DType) -> bool:
    """Whether `folded_logits` gives queries of `dtype` what the softmax wants, and is faster than another pass.

    A CPU waits for its memory where it adds the mask to [B, H, F, F] logits. Accelerators want a depth that their
    matrix units like, and XLA adds the mask for nothing.
    """
    return on_cpu() and softmax_dtype(dtype) == dtype


def folded_logits(query: tf.Tensor, key: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    """`masked_logits` as one product: the mask is one more channel of the keys, and one is the queries'."""
    ones = tf.ones_like(query[..., :1])
    bias = tf.cast(tf.transpose(key_bias, [0, 1, 3, 2]), key.dtype)
    return tf.matmul(tf.concat([query, ones], -1), tf.concat([key, ones * bias], -1), transpose_b=True)


@functools.cache
def _sums_in_float32() -> bool:
    """Whether this build's bfloat16 kernel does: a bfloat16 sum of ones gets no further than 256."""
    with tf.init_scope(), tf.device("CPU:0"):
        softmax = tf.function(tf.nn.softmax, autograph=False)
        probs = softmax(tf.zeros([1, _NUM_ZEROS], tf.bfloat16))
        return bool(tf.reduce_all(tf.cast(probs, tf.float32) == 1.0 / _NUM_ZEROS))
