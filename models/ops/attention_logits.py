"""Masked attention logits in the precision that the softmax kernel needs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from common.whole_compilation import is_compiled_whole
from models.ops.devices import device_type, on_cpu

_NUM_ZEROS = 4096


def softmax_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype in which logits of `dtype` go into tf.nn.softmax.

    This is float32, because sums of thousands of exponentials are too coarse in half precision and change transcripts.
    bfloat16 stays bfloat16 where the kernel sums in float32: the probabilities are those of float32, rounded, and half
    as much memory is read and written. XLA, which rounds the exponentials as well, reads and writes none of it.
    """
    device = device_type()
    has_kernel = device == "CPU" or (device == "GPU" and not is_compiled_whole())
    return dtype if dtype == tf.bfloat16 and has_kernel and _sums_in_float32(device) else tf.float32


def add_mask(logits: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    """Returns logits + key_bias in the dtype of the softmax."""
    dtype = softmax_dtype(logits.dtype)
    return tf.cast(logits, dtype) + tf.cast(key_bias, dtype)


def masked_logits(
    query: tf.Tensor, key: tf.Tensor, key_bias: tf.Tensor, *, add: Callable[..., tf.Tensor] = add_mask
) -> tf.Tensor:
    """Returns query key^T + key_bias, ready for the softmax; one product where that is faster, else `add`.

    Args:
        query: [B, H, F, D / H], scaled.
        key: [B, H, F, D / H], not scaled.
        key_bias: float32 [B, 1, 1, F].
        add: `add_mask` or a fused version of it.

    Returns:
        [B, H, F, F], dtype `softmax_dtype`.
    """
    if folds_mask(query.dtype):
        return folded_logits(query, key, key_bias)
    product = tf.matmul(query, key, transpose_b=True)
    # The output of a compiled function has no static rank, and TensorFlow's optimizer warns about such a softmax.
    return tf.ensure_shape(add(product, key_bias), product.shape)


def folds_mask(dtype: tf.DType) -> bool:
    """Returns whether `folded_logits` is exact enough for queries of `dtype` and faster than adding the mask.

    On a CPU, adding the mask to [B, H, F, F] logits is limited by memory bandwidth. On accelerators the extra channel
    makes the depth of the product awkward for the matrix units, and XLA fuses the addition anyway.
    """
    return on_cpu() and softmax_dtype(dtype) == dtype


def folded_logits(query: tf.Tensor, key: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    """Computes `masked_logits` as one product: the mask is an extra key channel, met by ones in the queries."""
    ones = tf.ones_like(query[..., :1])
    bias = tf.cast(tf.transpose(key_bias, [0, 1, 3, 2]), key.dtype)
    return tf.matmul(tf.concat([query, ones], -1), tf.concat([key, ones * bias], -1), transpose_b=True)


@functools.cache
def _sums_in_float32(device: str) -> bool:
    """Returns whether TensorFlow's bfloat16 softmax sums in float32; a bfloat16 sum of ones would stop at 256."""
    with tf.init_scope(), tf.device(f"{device}:0"):
        softmax = tf.function(tf.nn.softmax, autograph=False)
        probs = softmax(tf.zeros([1, _NUM_ZEROS], tf.bfloat16))
        return bool(tf.reduce_all(tf.cast(probs, tf.float32) == 1.0 / _NUM_ZEROS))
