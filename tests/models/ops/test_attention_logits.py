"""The dtype of attention's softmax: what it gives is float32's, rounded."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops import attention_logits


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
    found = probs(attention_logits.softmax_dtype(tf.bfloat16))
    np.testing.assert_array_equal(tf.cast(found, tf.float32).numpy(), tf.cast(expected, tf.float32).numpy())


def test_only_bfloat16_with_a_kernel_that_sums_in_float32_stays(monkeypatch):
    assert attention_logits.softmax_dtype(tf.float16) == attention_logits.softmax_dtype(tf.float32) == tf.float32
    monkeypatch.setattr(attention_logits, "_sums_in_float32", lambda device: False)
    assert attention_logits.softmax_dtype(tf.bfloat16) == tf.float32
    monkeypatch.setattr(attention_logits, "_sums_in_float32", lambda device: True)
    assert attention_logits.softmax_dtype(tf.bfloat16) == tf.bfloat16


def test_a_kernel_that_sums_in_bfloat16_is_found_out(monkeypatch):
    narrow = lambda x: tf.fill(x.shape, tf.constant(1 / 256, x.dtype))  # noqa: E731
    monkeypatch.setattr(tf.nn, "softmax", narrow)
    assert not attention_logits._sums_in_float32.__wrapped__("CPU")


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=["float32", "bfloat16"])
def test_the_folded_mask_gives_the_probabilities_of_the_added_one(dtype):
    rng = np.random.default_rng(1)
    query, key = (tf.cast(tf.constant(rng.normal(size=[2, 3, 21, 16]), tf.float32), dtype) for _ in range(2))
    lengths = tf.constant([21, 13])
    bias = (1.0 - tf.sequence_mask(lengths, 21, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -1e9
    assert attention_logits.folds_mask(dtype)
    found = tf.cast(tf.nn.softmax(attention_logits.folded_logits(query, key, bias)), tf.float32).numpy()
    wide = [tf.cast(x, tf.float32) for x in (query, key)]
    wanted = tf.nn.softmax(tf.matmul(*wide, transpose_b=True) + bias).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6 if dtype == tf.float32 else 0.02)
    assert not found[1, ..., 13:].any()
    # A row without a valid frame is nobody's text, but not NaN either.
    nothing = attention_logits.folded_logits(query, key, tf.fill([2, 1, 1, 21], -1e9))
    assert np.isfinite(tf.cast(tf.nn.softmax(nothing), tf.float32).numpy()).all()


@pytest.mark.parametrize("kind", ["GPU", "TPU"])
def test_accelerators_add_the_mask(monkeypatch, kind):
    assert not attention_logits.folds_mask(tf.float16)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda asked=None: ["one"] if asked == kind else [])
    assert not attention_logits.folds_mask(tf.float32)
