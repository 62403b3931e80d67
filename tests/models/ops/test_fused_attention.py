"""Fused attention against the plain one, and what it keeps for its gradient."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf

from models.ops import fused_attention
from models.ops.keyed_random import dropout
from models.ops.operations import PLAIN, FusedOperations
from tests.models.ops.test_fused import DTYPES, compare, make_random, noise


@DTYPES
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_attention(dtype, rate):
    random, shape = make_random(), [2, 3, 9, 8]
    keys = random.vector_keys([2, 3, 9, 9], stream=5) if rate else None
    bias = np.zeros((2, 1, 1, 9), np.float32)
    bias[1, ..., 6:] = -1e9

    def plain(query, key, value):
        logits = tf.matmul(query, key, transpose_b=True)
        probs = tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32) + bias, axis=-1), dtype)
        return tf.matmul(dropout(probs, rate, random, stream=5), value)

    compare(
        lambda *inputs: fused_attention.attention(*inputs, tf.constant(bias), rate=rate, keys=keys),
        plain,
        [noise(*shape, seed=seed, dtype=dtype) for seed in range(3)],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_attention_with_a_gated_position_bias(dtype, rate):
    random, shape = make_random(), [2, 3, 9, 8]
    bias = np.zeros((2, 1, 1, 9), np.float32)
    bias[1, ..., 6:] = -1e9

    def run(chosen, query, key, value, gate, by_distance):
        more = {"gate": gate, "positions": chosen.positions(by_distance, random, dtype=dtype)}
        return chosen.attention(query, key, value, tf.constant(bias), random, rate=rate, stream=5, **more)

    half = [noise(*shape, seed=seed, dtype=dtype) for seed in range(3)]
    # The fused bias is in the dtype of the products, the plain one in float32: of these numbers both are the same.
    by_distance = tf.cast(noise(3, 17, seed=4, dtype=dtype), tf.float32)
    inputs = [*half, 1.0 + noise(2, 3, 9, seed=3), by_distance]
    compare(lambda *x: run(FusedOperations(), *x), lambda *x: run(PLAIN, *x), inputs, dtype)


@DTYPES
def test_attention_with_a_bias_of_its_own_for_each_pair_of_frames(dtype):
    random, bias = make_random(), np.zeros((2, 1, 1, 9), np.float32)
    bias[1, ..., 6:] = -1e9

    def run(chosen, query, key, value, pair_bias):
        return chosen.attention(
            query, key, value, tf.constant(bias), random, rate=0.3, stream=5, pair_bias=pair_bias
        )  # fmt: skip

    inputs = [*(noise(2, 3, 9, 8, seed=seed, dtype=dtype) for seed in range(3)), noise(2, 3, 9, 9, seed=3, dtype=dtype)]
    compare(lambda *x: run(FusedOperations(), *x), lambda *x: run(PLAIN, *x), inputs, dtype)


def test_attention_keeps_one_tensor_of_all_pairs_of_frames(monkeypatch):
    """What the gradient makes of it needs no upstream gradient, but waits for one: else it would be kept as well."""
    events = []

    def noted(name, x, secs=0.0):
        def note(value):
            time.sleep(secs)
            events.append(name)
            return value

        # Not stateful: TensorFlow would keep stateful operations in the order of the program, whatever they need.
        return tf.ensure_shape(tf.numpy_function(note, [x], x.dtype, stateful=False), x.shape)

    kept = fused_attention._kept
    monkeypatch.setattr(fused_attention, "_kept", lambda signed: noted("kept", kept(signed)))
    shape = [1, 2, 11, 4]  # of no other test: `attention` is traced anew
    keys = make_random(1).vector_keys([1, 2, 11, 11], stream=5)

    @tf.function
    def run(query, key, value):
        with tf.GradientTape() as tape:
            tape.watch(value)
            context = fused_attention.attention(query, key, value, tf.zeros([1, 1, 1, 11]), rate=0.3, keys=keys)
        return tape.gradient(context, value, output_gradients=noted("upstream", context, secs=0.3))

    assert np.abs(run(*(noise(*shape, seed=seed) for seed in range(3)))).max() > 0.1
    assert events == ["kept", "upstream", "kept"]
