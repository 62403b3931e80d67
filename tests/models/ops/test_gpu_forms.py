"""The forms of operations that a GPU gets, run on a CPU: the same results as the forms of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from common.whole_compilation import compile_whole, is_compiled_whole
from models.ops import attention_logits, fused, operations
from models.ops.keyed_random import UpdateRandom
from models.wav2vec2.model import build_model


def gradients_of(*, fused_ops):
    """Returns logits and gradients of a tiny model with the operations that are chosen now."""
    tf_keras.utils.set_random_seed(0)
    model = build_model(preset="tiny", vocab_size=8, fused_ops=fused_ops)
    waveform = tf.constant(np.random.default_rng(0).normal(size=[2, 4000]).astype(np.float32))
    random = UpdateRandom(seed=0, update=tf.constant(0), row_ids=tf.constant([4, 7]))

    @tf.function(autograph=False)
    def compute():
        with tf.GradientTape() as tape:
            logits = model(waveform, tf.constant([4000, 3000]), training=True, random=random)
            loss = tf.reduce_sum(tf.square(logits))
        return [logits, *tape.gradient(loss, model.trainable_variables)]

    return [one.numpy() for one in compute()]


@pytest.mark.parametrize("fused_ops", ["off", "on"])
def test_a_model_trains_as_on_a_cpu(monkeypatch, fused_ops):
    wanted = gradients_of(fused_ops=fused_ops)
    chosen = []
    monkeypatch.setattr(operations, "device_type", lambda: chosen.append("GPU") or "GPU")
    monkeypatch.setattr(operations, "on_cpu", lambda: False)
    found = gradients_of(fused_ops=fused_ops)
    assert chosen
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_the_gradient_of_a_bias_is_the_sum_over_rows():
    x, bias = tf.random.stateless_normal([37, 6], [1, 2]), tf.random.stateless_normal([6], [3, 4])
    upstream = tf.random.stateless_normal([37, 6], [5, 6])
    with tf.GradientTape() as tape:
        tape.watch([x, bias])
        result = fused.add_bias(x, bias)
    to_x, to_bias = tape.gradient(result, [x, bias], upstream)
    np.testing.assert_array_equal(result, x + bias)
    np.testing.assert_array_equal(to_x, upstream)
    np.testing.assert_allclose(to_bias, tf.reduce_sum(upstream, axis=0), rtol=1e-5)


def test_only_the_kernel_of_a_gpu_takes_bfloat16_logits(monkeypatch):
    monkeypatch.setattr(attention_logits, "device_type", lambda: "GPU")
    monkeypatch.setattr(attention_logits, "_sums_in_float32", lambda device: device == "GPU")
    assert attention_logits.softmax_dtype(tf.bfloat16) == tf.bfloat16
    seen = []
    compile_whole(lambda x: seen.append(attention_logits.softmax_dtype(tf.bfloat16)) or x + 1.0)(tf.constant(1.0))
    assert seen == [tf.float32] and not is_compiled_whole()
