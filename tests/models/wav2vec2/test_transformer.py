"""The context network: attention and position embedding against plain NumPy, layer drop, both norm orders."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops.keyed_random import UpdateRandom
from models.wav2vec2.config import preset
from models.wav2vec2.transformer import Encoder, PositionalConvolution, SelfAttention

SMALL = {"hidden_size": 16, "num_heads": 2, "num_layers": 3, "intermediate_size": 32}


def small_config(**overrides):
    return preset("tiny", **{**SMALL, "pos_conv_kernel": 4, "pos_conv_groups": 2, **overrides})


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_attention_equals_its_definition_and_ignores_padded_keys():
    layer = SelfAttention(config=small_config(), name="a", stream=1, dtype="float32")
    x = noise(1, 5, 16)
    key_bias = np.zeros((1, 1, 1, 5), np.float32)
    key_bias[..., 4:] = -1e9
    found = layer(tf.constant(x), tf.constant(key_bias), None).numpy()[0]

    query, key, value = np.split(x[0] @ layer.qkv.kernel.numpy(), 3, axis=-1)
    heads = []
    for head in (slice(0, 8), slice(8, 16)):
        logits = query[:, head] @ key[:4, head].T / np.sqrt(8)
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        heads.append(probs @ value[:4, head])
    wanted = np.concatenate(heads, axis=-1) @ layer.out.kernel.numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_positional_convolution_sums_its_groups_over_the_window():
    layer = PositionalConvolution(config=small_config(), dtype="float32")
    layer.kernel_g.assign(noise(4, 1, 1))
    x = noise(1, 6, 16)
    v = layer.kernel_v.numpy()
    kernel = layer.kernel_g.numpy() * v / np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))
    padded = np.pad(x[0], [(2, 1), (0, 0)])  # kernel 4: two frames of the past, one of the future
    wanted = np.zeros((6, 16))
    for frame in range(6):
        for group in range(2):
            channels = slice(8 * group, 8 * group + 8)
            window = padded[frame : frame + 4, channels]
            wanted[frame, channels] = np.einsum("kc,kco->o", window, kernel[:, :, channels])
    wanted = tf.nn.gelu(wanted, approximate=False).numpy()
    np.testing.assert_allclose(layer(tf.constant(x)).numpy()[0], wanted, atol=1e-5)


@pytest.mark.parametrize("stable_layer_norm", [False, True])
def test_hidden_states_list_input_and_every_layer_and_end_normalized(stable_layer_norm):
    encoder = Encoder(config=small_config(stable_layer_norm=stable_layer_norm), stream=1, dtype="float32")
    states = encoder(tf.constant(noise(2, 7, 16)), tf.constant([7, 3]), None)
    assert len(states) == 4
    last = states[-1].numpy()[0]  # the other row has padded frames, which hold nothing of use
    # Fresh norms have scale 1 and offset 0, so normalized frames show it.
    np.testing.assert_allclose(last.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(last.std(-1), 1.0, atol=1e-3)


def test_layer_drop_skips_the_layers_whose_number_says_so():
    config = small_config(layer_drop=0.5, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    encoder = Encoder(config=config, stream=1, dtype="float32")
    x, lengths = tf.constant(noise(1, 7, 16)), tf.constant([7])
    patterns = set()
    for update in range(20):
        random = UpdateRandom(seed=0, update=tf.constant(update), row_ids=tf.constant([0]))
        states = [state.numpy() for state in encoder(x, lengths, random)[:-1]]
        patterns.add(tuple(bool((a == b).all()) for a, b in zip(states[:-1], states[1:], strict=True)))
    assert len(patterns) == 4  # two visible layers, each skipped or not


def test_skipped_layers_get_no_gradient():
    config = small_config(layer_drop=0.999, num_layers=1)
    encoder = Encoder(config=config, stream=1, dtype="float32")
    random = UpdateRandom(seed=0, update=tf.constant(0), row_ids=tf.constant([0]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(tf.constant(noise(1, 7, 16)), tf.constant([7]), random)[-1] ** 3)
    variables = encoder.transformer_layers[0].trainable_variables
    gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert all(not gradient.numpy().any() for gradient in gradients)


def test_dropout_does_not_depend_on_the_padded_width():
    """A row in a wider bucket trains on the very same numbers: attention, hidden and activation dropout, layer drop."""
    config = small_config(hidden_dropout=0.2, attention_dropout=0.3, activation_dropout=0.2, layer_drop=0.2)
    encoder = Encoder(config=config, stream=1, dtype="float32")
    random = UpdateRandom(seed=0, update=tf.constant(4), row_ids=tf.constant([7, 9]))
    x, lengths = noise(2, 9, 16), tf.constant([9, 6])
    narrow = encoder(tf.constant(x), lengths, random)[-1].numpy()
    wide = encoder(tf.constant(np.pad(x, [(0, 0), (0, 5), (0, 0)])), lengths, random)[-1].numpy()
    other = encoder(tf.constant(x), lengths, UpdateRandom(seed=0, update=tf.constant(5), row_ids=tf.constant([7, 9])))
    for row, length in enumerate(lengths.numpy()):
        np.testing.assert_allclose(wide[row, :length], narrow[row, :length], atol=1e-5)
        assert np.abs(other[-1].numpy()[row, :length] - narrow[row, :length]).max() > 0.1
