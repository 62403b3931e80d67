"""The dtype of attention's softmax: what it gives is float32's, rounded."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models import softmax


@pytest.mark.parametrize("num_frames", [1, 37, 768])
def test_bfloat16_gives_the_rounded_probabilities_of_float32(num_frames):
    rng = np.random.default_rng(0)
    # Rows from nearly flat to nearly one-hot, the last keys masked as padding is.
    logits = rng.normal(size=[2, 3, num_frames, num_frames]) * rng.uniform(0.1, 30.0, size=[2, 3, num_frames, 1])
    logits = tf.cast(tf.constant(logits, tf.float32), tf.bfloat16)
    bias = tf.where(tf.range(num_frames) < max(1, num_frames - 9), 0.0, -1e9)

    @tf.function(autograph=False)
    def probs(dtype):
        return tf.cast(tf.nn.softmax(tf.cast(logits, dtype) + tf.cast(bias, dtype)), tf.bfloat16)

    expected = probs(tf.float32)
    found = probs(softmax.softmax_dtype(tf.bfloat16))
    np.testing.assert_array_equal(tf.cast(found, tf.float32).numpy(), tf.cast(expected, tf.float32).numpy())


def test_only_bfloat16_with_a_kernel_that_sums_in_float32_stays(monkeypatch):
    assert softmax.softmax_dtype(tf.float16) == softmax.softmax_dtype(tf.float32) == tf.float32
    monkeypatch.setattr(softmax, "_sums_in_float32", lambda: False)
    assert softmax.softmax_dtype(tf.bfloat16) == tf.float32
    monkeypatch.setattr(softmax, "_sums_in_float32", lambda: True)
    assert softmax.softmax_dtype(tf.bfloat16) == tf.bfloat16


def test_a_kernel_that_sums_in_bfloat16_is_found_out(monkeypatch):
    narrow = lambda x: tf.fill(x.shape, tf.constant(1 / 256, x.dtype))  # noqa: E731
    monkeypatch.setattr(tf.nn, "softmax", narrow)
    assert not softmax._sums_in_float32.__wrapped__()
