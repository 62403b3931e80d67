"""The convolutions: frame counts and independence of padding, with both kinds of norm."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from common.whole_compilation import compile_whole
from models.wav2vec2.config import preset
from models.wav2vec2.feature_encoder import ConvolutionLayer, FeatureEncoder, output_lengths


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_output_lengths_are_those_of_the_arithmetic(name):
    config = preset(name)
    samples = [0, 1, 399, 400, 719, 720, 16_000, 246_000]
    found = output_lengths(config, tf.constant(samples)).numpy().tolist()
    assert found == [config.num_frames(n) for n in samples]


def test_group_norm_normalizes_each_channel_over_valid_positions_only():
    layer = ConvolutionLayer(
        input_size=1, output_size=4, kernel_size=2, stride=1, norm="group", use_bias=False, name="c",
        dtype="float32",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, size=(1, 30, 1)).astype(np.float32)
    raw = x[:, :-1] * layer.kernel.numpy()[0, 0] + x[:, 1:] * layer.kernel.numpy()[1, 0]
    valid = raw[:, :19]
    wanted = (raw - valid.mean(1, keepdims=True)) / np.sqrt(valid.var(1, keepdims=True) + 1e-5)
    wanted = tf.nn.gelu(wanted, approximate=False).numpy()
    found, lengths = layer(tf.constant(x), tf.constant([20]))
    assert lengths.numpy().tolist() == [19]
    np.testing.assert_allclose(found.numpy()[:, :19], wanted[:, :19], atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_does_not_change_features(norm):
    config = preset("tiny", feature_norm=norm, conv_bias=norm == "layer")
    encoder = FeatureEncoder(config=config, dtype="float32")
    rng = np.random.default_rng(0)
    row = rng.normal(size=3000).astype(np.float32)
    batch = rng.normal(size=(2, 9000)).astype(np.float32)  # the padding holds noise, not zeros
    batch[0, :3000] = row
    alone, alone_lengths = encoder(tf.constant(row[np.newaxis]), tf.constant([3000]))
    together, lengths = encoder(tf.constant(batch), tf.constant([3000, 9000]))
    assert alone.shape[1] == alone_lengths[0] == lengths[0] == config.num_frames(3000)
    np.testing.assert_allclose(together.numpy()[0, : alone.shape[1]], alone.numpy()[0], atol=1e-5)


def test_a_compiled_encoder_has_one_erf_for_each_convolution_and_the_same_features():
    """TensorFlow's GELU is two kernels on a GPU, see `models.ops.operations.Operations.gelu`."""
    encoder = FeatureEncoder(config=preset("tiny"), dtype="float32")
    inputs = tf.constant(np.random.default_rng(0).normal(size=(2, 3000)).astype(np.float32)), tf.constant([3000, 2000])
    compiled = compile_whole(encoder)
    program = compiled.experimental_get_compiler_ir(*inputs)(stage="hlo")
    assert len(re.findall(r" erf\(", program)) == len(encoder.convolutions)
    assert " exponential(" not in program
    np.testing.assert_allclose(compiled(*inputs)[0].numpy(), encoder(*inputs)[0].numpy(), atol=1e-5)
