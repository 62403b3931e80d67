"""Scores by distance on pairs of frames: the values, and gradients by copies instead of TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops import relative_bias


def scores(frames, columns):
    rng = np.random.default_rng(frames)
    return tf.constant(rng.normal(size=(2, 3, frames, columns)).astype(np.float32))


def gradient_of(function, x, upstream):
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = function(x)
    return tape.gradient(result, x, output_gradients=upstream).numpy()


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_skew_puts_each_distance_on_its_diagonal(frames):
    x = scores(frames, 2 * frames)
    wanted = np.zeros((2, 3, frames, frames), np.float32)
    for query in range(frames):
        for key in range(frames):
            wanted[:, :, query, key] = x[:, :, query, key - query + frames - 1]
    np.testing.assert_array_equal(relative_bias.skew(x), wanted)
    np.testing.assert_array_equal(relative_bias.fast_skew(x), wanted)
    upstream = scores(frames, frames)
    np.testing.assert_array_equal(
        gradient_of(relative_bias.fast_skew, x, upstream), gradient_of(relative_bias.skew, x, upstream)
    )


# Fewer frames than distances, as many, and more; nothing to one side; a single vector for all distances.
@pytest.mark.parametrize(
    ("frames", "left", "right"), [(1, 4, 2), (3, 4, 2), (7, 4, 2), (12, 4, 2), (9, 0, 3), (9, 3, 0), (5, 0, 0)]
)
def test_spread_is_the_clipped_distance_but_for_a_constant_of_each_row(frames, left, right):
    x = scores(frames, left + right + 1)
    distance = np.arange(frames)[np.newaxis, :] - np.arange(frames)[:, np.newaxis]
    wanted = np.take_along_axis(
        x.numpy(), np.broadcast_to(np.clip(distance, -left, right) + left, (2, 3, frames, frames)), axis=3
    )

    def shared(x):
        return relative_bias.spread(x, left=left)

    def fast(x):
        return relative_bias.fast_spread(x, left=left)

    for function in (shared, fast):
        found = function(x).numpy()
        np.testing.assert_allclose(found - wanted, np.repeat(-x.numpy()[..., -1:], frames, axis=3), atol=1e-6)
    upstream = scores(frames, frames)
    np.testing.assert_allclose(gradient_of(fast, x, upstream), gradient_of(shared, x, upstream), atol=1e-5)


# Fewer queries than a block, a block and a rest, and rows that have distances far to the left.
@pytest.mark.parametrize(("frames", "left", "right"), [(1, 4, 2), (7, 4, 2), (70, 4, 2), (130, 64, 8), (66, 0, 1)])
@pytest.mark.parametrize("is_training", [False, True])
def test_channels_for_what_is_far_to_the_left_make_the_same_logits(frames, left, right, is_training):
    rng = np.random.default_rng(frames)
    query, key, upstream = (
        tf.constant(rng.normal(size=(2, 3, frames, size)).astype(np.float32)) for size in (4, 4, frames)
    )
    found = []
    for is_folded in (False, True):
        table = scores(frames, left + right + 1)
        with tf.GradientTape() as tape:
            tape.watch([query, key, table])
            parts = query, key, relative_bias.spread(table, left=left)
            if is_folded:
                parts = relative_bias.fold_far(query, key, table, left=left, is_training=is_training)
            logits = tf.matmul(parts[0], parts[1], transpose_b=True) + parts[2]
        found.append([logits, *tape.gradient(logits, [query, key, table], output_gradients=upstream)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
