"""Projection, layer norm, GELU against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from models.ops.operations import gelu
from models.wav2vec2.layers import LayerNorm, Projection


def test_projection_is_a_matrix_product_over_the_last_axis():
    layer = Projection(input_size=3, output_size=2, name="p", dtype="float32")
    layer.bias.assign([1.0, -1.0])
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    result = layer(tf.constant(x))
    assert result.shape == (2, 4, 2)
    np.testing.assert_allclose(result.numpy(), x @ layer.kernel.numpy() + [1.0, -1.0], atol=1e-6)


def test_projection_in_bfloat16_keeps_float32_variables():
    layer = Projection(input_size=3, output_size=2, name="p", dtype="mixed_bfloat16")
    assert layer(tf.ones([1, 3])).dtype == tf.bfloat16
    assert layer.kernel.dtype == tf.float32


def test_layer_norm_equals_its_definition():
    layer = LayerNorm(size=8, epsilon=1e-5, name="n")
    rng = np.random.default_rng(0)
    scale, offset = rng.normal(size=8).astype(np.float32), rng.normal(size=8).astype(np.float32)
    layer.scale.assign(scale)
    layer.offset.assign(offset)
    x = rng.normal(3.0, 5.0, size=(2, 5, 8)).astype(np.float32)
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + offset
    np.testing.assert_allclose(layer(tf.constant(x)).numpy(), wanted, atol=1e-5)


def test_layer_norm_of_half_precision_input_computes_in_float32():
    layer = LayerNorm(size=64, epsilon=1e-5, name="n")
    # A large common offset: statistics in bfloat16 (8 bits) would lose the differences.
    x = tf.cast(tf.range(64) * 4 + 1024, tf.bfloat16)[tf.newaxis]
    wide = tf.cast(x, tf.float32)
    result = layer(x)
    assert result.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(result, tf.float32).numpy(), layer(wide).numpy(), atol=0.01)


def test_gelu_is_the_exact_one():
    x = np.linspace(-4, 4, 17).astype(np.float32)
    wanted = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(gelu(tf.constant(x)).numpy(), wanted, atol=1e-6)


def test_variable_names_tell_the_optimizer_what_not_to_decay():
    names = [v.name for v in LayerNorm(size=2, epsilon=1e-5, name="encoder/norm").trainable_variables]
    names += [v.name for v in Projection(input_size=1, output_size=1, name="a/b", dtype="float32").trainable_variables]
    assert names == [
        "encoder/norm/layer_norm/scale:0",
        "encoder/norm/layer_norm/offset:0",
        "a/b/kernel:0",
        "a/b/bias:0",
    ]
