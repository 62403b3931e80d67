"""The bias between pairs of frames: diagonals of a matrix, its gradient, and the buckets of distances."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops import fused_attention
from models.ops.operations import PLAIN, FusedOperations
from models.ops.position_bias import BLOCK, collapse, collapse_by_blocks, expand, shifted_sum
from models.wav2vec2.config import preset
from models.wav2vec2.relative_positions import PositionGate, RelativePositionBias, distance_buckets


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_a_bias_by_distance_is_spread_over_diagonals_and_its_gradient_summed_over_them(num_frames):
    rng = np.random.default_rng(0)
    by_distance = rng.normal(size=(3, 2 * num_frames - 1)).astype(np.float32)
    upstream = rng.normal(size=(3, num_frames, num_frames)).astype(np.float32)
    wanted, summed = np.zeros_like(upstream), np.zeros_like(by_distance)
    for query in range(num_frames):
        for key in range(num_frames):
            wanted[:, query, key] = by_distance[:, key - query + num_frames - 1]
            summed[:, key - query + num_frames - 1] += upstream[:, query, key]
    variable = tf.Variable(by_distance)
    with tf.GradientTape() as tape:
        found = expand(variable)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(tape.gradient(found, variable, output_gradients=upstream), summed, atol=1e-5)
    np.testing.assert_allclose(collapse(tf.constant(upstream)), summed, atol=1e-5)


# Fewer frames than a block, whole blocks and a rest, and more than one block of blocks.
@pytest.mark.parametrize("num_frames", [1, 3, BLOCK, 2 * BLOCK + 1, BLOCK**2 + 3])
def test_diagonals_summed_by_blocks_are_those_of_the_whole_matrix(num_frames):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(2, num_frames, num_frames)).astype(np.float32)
    wanted = np.zeros((2, 2 * num_frames - 1))
    for query in range(num_frames):
        wanted[:, num_frames - 1 - query : 2 * num_frames - 1 - query] += matrix[:, query]
    rows = shifted_sum(tf.constant(matrix), count=BLOCK, step=1)
    found = collapse_by_blocks(rows, num_frames=tf.constant(num_frames), step=BLOCK)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("is_cpu", [True, False])
def test_gradients_of_gate_and_bias_are_those_of_their_product(monkeypatch, is_cpu):
    monkeypatch.setattr(fused_attention, "on_cpu", lambda: is_cpu)
    rng = np.random.default_rng(0)
    upstream, gate, by_distance = (
        tf.constant(rng.normal(size=shape).astype(np.float32)) for shape in ((2, 3, 11, 11), (2, 3, 11), (3, 21))
    )
    with tf.GradientTape() as tape:
        tape.watch([gate, by_distance])
        product = gate[..., tf.newaxis] * expand(by_distance)
    wanted = tape.gradient(product, [gate, by_distance], output_gradients=upstream)
    for a, b in zip(fused_attention._positions_backward(upstream, gate, expand(by_distance)), wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_bias_that_needs_no_gradient_is_in_the_dtype_of_the_products():
    by_distance = tf.constant([[0.1, 0.2, 0.3]])
    assert PLAIN.positions(by_distance, None, dtype=tf.bfloat16).matrix.dtype == tf.bfloat16
    # Layers that add up their gradients do so in float32.
    assert PLAIN.positions(by_distance, object(), dtype=tf.bfloat16).matrix.dtype == tf.float32
    with tf.GradientTape() as tape:
        tape.watch(by_distance)
        matrix = FusedOperations().positions(by_distance, object(), dtype=tf.bfloat16).matrix
    assert matrix.dtype == tf.bfloat16 and tape.gradient(matrix, by_distance) is None


def test_near_distances_have_a_bucket_each_and_far_ones_share_them():
    buckets = distance_buckets(320, 800)
    np.testing.assert_array_equal(buckets[:81], np.arange(81))
    # As the reference counts: transformers 5.23 on PyTorch 2.13, WavLMAttention._relative_positions_bucket.
    assert buckets[[90, 100, 200, 400, 700, 799, 800]].tolist() == [84, 87, 111, 135, 155, 159, 159]
    assert (np.diff(buckets) >= 0).all() and len(buckets) == 801
    of_32 = distance_buckets(32, 128)[[7, 8, 11, 12, 16, 32, 64, 90, 91, 128]]
    assert of_32.tolist() == [7, 8, 8, 9, 10, 12, 14, 14, 15, 15]


def test_keys_before_and_behind_a_query_have_halves_of_the_table_and_far_ones_its_last_rows():
    config = preset("tiny", relative_position_buckets=8, relative_position_max_distance=6)
    layer = RelativePositionBias(config=config, operations=PLAIN, dtype="float32")
    layer.table.assign(np.arange(32, dtype=np.float32).reshape(4, 8))
    found = layer(tf.constant(9), None).by_distance[0].numpy()
    assert found.tolist() == [3, 3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7, 7, 7]


def test_the_gate_is_two_where_it_is_closed_and_follows_its_definition_elsewhere():
    config = preset("tiny", hidden_size=8, num_heads=2, pos_conv_groups=2, relative_position_buckets=8)
    layer = PositionGate(config=config, name="gate", dtype="float32")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 8)).astype(np.float32)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    found = layer(tf.constant(x)).numpy()
    for head in range(2):
        for frame in range(3):
            projected = x[0, frame, 4 * head : 4 * head + 4] @ layer.kernel.numpy() + layer.bias.numpy()
            a, b = 1.0 / (1.0 + np.exp(-projected.reshape(2, 4).sum(-1)))
            wanted = a * (b * layer.scale.numpy()[0, 0, head, 0] - 1.0) + 2.0
            assert found[0, head, frame] == pytest.approx(wanted, rel=1e-5)
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    layer.bias.assign([-30.0] * 8)
    np.testing.assert_allclose(layer(tf.constant(x)), 2.0, atol=1e-6)
