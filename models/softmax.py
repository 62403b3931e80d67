"""In what precision attention's softmax reads its logits and writes its probabilities."""

from __future__ import annotations

import functools

import tensorflow as tf

_NUM_ZEROS = 4096


def softmax_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype that logits of `dtype` are given to tf.nn.softmax in.

    float32, because sums of up to thousands of exponentials lose a row's text in half precision. bfloat16 stays what it
    is where the kernel computes in float32 inside: rounded at the end, its probabilities are those of float32 bit for
    bit, and half as much memory is read and written.
    """
    on_cpu = not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    return dtype if dtype == tf.bfloat16 and on_cpu and _sums_in_float32() else tf.float32


@functools.cache
def _sums_in_float32() -> bool:
    """Whether this build's bfloat16 kernel does: a bfloat16 sum of ones gets no further than 256."""
    with tf.init_scope(), tf.device("CPU:0"):
        softmax = tf.function(tf.nn.softmax, autograph=False)
        probs = softmax(tf.zeros([1, _NUM_ZEROS], tf.bfloat16))
        return bool(tf.reduce_all(tf.cast(probs, tf.float32) == 1.0 / _NUM_ZEROS))
