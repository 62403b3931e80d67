"""CTC loss: against brute force, and against float64 at any scale, vocabulary and length; which rows can be aligned."""

from __future__ import annotations

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.ctc_error import oracle
from models.ctc import loss as ctc

NUM_ROWS, NUM_FRAMES, NUM_LABELS = 3, 24, 6


def brute_force(log_probs, labels):
    """Sums the probability of every path of frames that collapses to `labels`."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        collapsed = [token for token, _ in itertools.groupby(path) if token != 0]
        if collapsed == list(labels):
            total += np.exp(sum(log_probs[frame, token] for frame, token in enumerate(path)))
    return -np.log(total)


def example():
    """Rows: plain, with repeats, empty text, no frames, one label, infeasible."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 30, 8)).astype(np.float32)
    labels = rng.integers(1, 8, size=(6, 7)).astype(np.int32)
    labels[1] = [3, 3, 3, 2, 2, 1, 1]
    labels[5] = [2, 2, 2, 0, 0, 0, 0]
    return logits, np.array([30, 20, 10, 0, 30, 4]), labels, np.array([7, 5, 0, 0, 1, 3])


@functools.cache
def function(blank_id, jit_compile):
    @tf.function(autograph=False, jit_compile=jit_compile)
    def run(logits, *more):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = ctc.ctc_loss(logits, *more, blank_id=blank_id)
        return losses, tape.gradient(losses, logits)

    return run


def run(logits, *more, blank_id=0, jit_compile=False):
    """Losses and gradient of their sum, from a graph."""
    losses, gradient = function(blank_id, jit_compile)(tf.constant(logits), *map(tf.constant, more))
    return losses.numpy(), gradient.numpy()


def check_row(logits, labels, loss, gradient, blank_id=0):
    """Compares one row with float64: its loss to 1e-5 or 1e-7 nats; its gradient to 1e-5, by number and as a whole.

    Where all but nothing is left of the gradient, it is a difference of two probabilities that float32 rounds to 1.
    """
    order = [blank_id, *(token for token in range(logits.shape[1]) if token != blank_id)]
    wanted_loss, moved = oracle(logits[:, order], np.array([order.index(label) for label in labels], np.int64))
    wanted = np.empty_like(moved)
    wanted[:, order] = moved
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5)
    assert np.linalg.norm(gradient - wanted) <= 1e-5 * np.linalg.norm(wanted) + 2e-6


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], []])
def test_loss_is_the_summed_probability_of_all_paths(labels):
    logits = np.random.default_rng(1).normal(size=(1, 4, 3)).astype(np.float32)
    log_probs = tf.nn.log_softmax(logits[0]).numpy()
    padded = np.array([labels + [0] * (3 - len(labels))], np.int32)
    found = ctc.ctc_loss(tf.constant(logits), [4], tf.constant(padded), [len(labels)])
    np.testing.assert_allclose(found.numpy()[0], brute_force(log_probs, labels), rtol=1e-5)


@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(
    scale=st.sampled_from([0.01, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]),
    vocab_size=st.sampled_from([2, 5, 40]),
    blank_id=st.sampled_from([0, 1]),
    seed=st.integers(0, 10_000),
    padding=st.sampled_from([0, -1, 40, 10**6, -(2**31)]),
    filler=st.sampled_from([0.0, np.nan, np.inf, -np.inf]),
)
def test_any_rows_are_as_exact_as_float64_whatever_stands_behind_their_lengths(
    scale, vocab_size, blank_id, seed, padding, filler
):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(NUM_ROWS, NUM_FRAMES, vocab_size))).astype(np.float32)
    frames = rng.integers(1, NUM_FRAMES + 1, NUM_ROWS).astype(np.int32)
    others = [token for token in range(vocab_size) if token != blank_id]
    labels = rng.choice(others, size=(NUM_ROWS, NUM_LABELS)).astype(np.int32)
    lengths = np.minimum(rng.integers(0, NUM_LABELS + 1, NUM_ROWS), frames).astype(np.int32)
    for row in range(NUM_ROWS):
        logits[row, frames[row] :] = filler
        labels[row, lengths[row] :] = padding
    is_feasible = ctc.feasible(labels, lengths, frames).numpy()
    losses, gradient = run(logits, frames, labels, lengths, blank_id=blank_id)
    for row, (num_frames, num_labels) in enumerate(zip(frames, lengths, strict=True)):
        assert not gradient[row, num_frames:].any()
        if is_feasible[row]:
            found = losses[row], gradient[row, :num_frames]
            check_row(logits[row, :num_frames], labels[row, :num_labels], *found, blank_id=blank_id)
        else:
            assert losses[row] == 0.0 and not gradient[row].any()


@pytest.mark.parametrize(
    ("num_frames", "num_labels", "vocab_size", "scale"),
    [
        (768, 200, 32, 3.0),
        (768, 200, 32, 100.0),
        (60, 20, 10_000, 100.0),
        (300, 40, 10_000, 1.0),
        (3000, 400, 32, 10.0),
    ],
)
def test_long_rows_large_vocabularies_and_sure_and_wrong_models_are_as_exact(num_frames, num_labels, vocab_size, scale):
    """TensorFlow's CPU kernel is off by up to 4 % in the loss and 70 % in the gradient here."""
    rng = np.random.default_rng(num_frames)
    logits = (scale * rng.normal(size=(1, num_frames, vocab_size))).astype(np.float32)
    labels = rng.integers(1, vocab_size, (1, num_labels)).astype(np.int32)
    losses, gradient = run(logits, [num_frames], labels, [num_labels])
    check_row(logits[0], labels[0], losses[0], gradient[0])


@pytest.mark.parametrize("lead", [3.0, 12.0, 20.0, 200.0])
def test_a_sure_and_right_model_has_an_exact_small_loss(lead):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 32, (1, 20)).astype(np.int32)
    logits = rng.normal(size=(1, 60, 32)).astype(np.float32)
    logits[0, np.arange(60), np.stack([labels[0], labels[0], 0 * labels[0]], axis=1).ravel()] += lead
    losses, gradient = run(logits, [60], labels, [20])
    check_row(logits[0], labels[0], losses[0], gradient[0])
    assert lead < 10.0 or losses[0] < 0.1


def test_a_graph_compiled_by_xla_gives_the_same():
    rng = np.random.default_rng(2)
    for scale in (1.0, 100.0):
        logits = (scale * rng.normal(size=(NUM_ROWS, NUM_FRAMES, 5))).astype(np.float32)
        logits[1, 9:] = np.nan
        labels = rng.integers(1, 5, (NUM_ROWS, NUM_LABELS)).astype(np.int32)
        labels[2, 2:] = [-1, 99, 10**6, -(2**31)]
        more = np.array([24, 9, 1], np.int32), labels, np.array([6, 2, 0], np.int32)
        found, wanted = run(logits, *more, jit_compile=True), run(logits, *more)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
        np.testing.assert_allclose(found[1], wanted[1], atol=1e-6)


def test_a_row_is_the_same_alone_and_in_a_longer_batch():
    logits, logit_lengths, labels, label_lengths = example()
    losses, gradient = run(logits, logit_lengths, labels, label_lengths)
    for row in (0, 1, 2, 4):
        frames, length = logit_lengths[row], label_lengths[row]
        alone = run(logits[row : row + 1, :frames], [frames], labels[row : row + 1, :length], [length])
        np.testing.assert_allclose(alone[0][0], losses[row], rtol=1e-6)
        np.testing.assert_allclose(alone[1][0], gradient[row, :frames], rtol=0, atol=1e-6)
    assert (losses[[0, 1, 2, 4]] > 1.0).all()


def test_infeasible_rows_have_no_loss_and_no_gradient_whatever_their_logits_are():
    logits, logit_lengths, labels, label_lengths = example()
    logits[[3, 5]] = np.nan
    losses, gradient = run(logits, logit_lengths, labels, label_lengths)
    assert losses[[3, 5]].tolist() == [0.0, 0.0]
    assert not gradient[[3, 5]].any()
    assert np.isfinite(gradient).all()


def test_frames_past_the_length_have_no_gradient():
    logits, logit_lengths, labels, label_lengths = example()
    _, gradient = run(logits, logit_lengths, labels, label_lengths)
    assert np.abs(gradient[1, :20]).max() > 0.01
    assert np.abs(gradient[1, 20:]).max() == 0.0


def test_tokens_that_cannot_be_have_no_part_in_the_loss():
    """Logits of -inf: a token that the labels do not say, one that they say in some frames, one that they need."""
    logits = np.random.default_rng(3).normal(size=(3, 6, 5)).astype(np.float32)
    labels = np.array([[1, 2], [1, 2], [1, 2]], np.int32)
    logits[0, :, 4] = -np.inf
    logits[1, :3, 2] = -np.inf
    logits[2, :, 2] = -np.inf
    losses, gradient = run(logits, [6] * 3, labels, [2] * 3)
    for row in (0, 1):
        check_row(logits[row], labels[row], losses[row], gradient[row])
    assert losses[2] == np.inf


def test_a_logit_of_a_valid_frame_that_is_no_number_shows_in_the_loss():
    logits, logit_lengths, labels, label_lengths = example()
    wanted, _ = run(logits, logit_lengths, labels, label_lengths)
    for token in (0, labels[1, 0], 7):
        logits[1, 4, token] = np.nan
        losses, _ = run(logits, logit_lengths, labels, label_lengths)
        assert not np.isfinite(losses[1])
        np.testing.assert_array_equal(np.delete(losses, 1), np.delete(wanted, 1))


def test_a_batch_whose_texts_are_all_empty_has_the_blanks_loss():
    logits = np.random.default_rng(4).normal(size=(2, 7, 5)).astype(np.float32)
    losses, gradient = run(logits, [7, 1], np.zeros([2, 0], np.int32), [0, 0])
    for row, num_frames in enumerate((7, 1)):
        check_row(logits[row, :num_frames], [], losses[row], gradient[row, :num_frames])


def test_feasible_counts_labels_and_adjacent_repeats():
    labels = tf.constant([[1, 2, 3], [1, 1, 2], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    lengths = [3, 3, 3, 2, 0, 0]
    frames = [3, 3, 5, 3, 1, 0]
    # 3 <= 3; 3 + 1 > 3; 3 + 2 <= 5; the third label of row 3 is padding: 2 + 1 <= 3; empty; no frames.
    wanted = [True, False, True, True, True, False]
    assert ctc.feasible(labels, lengths, frames).numpy().tolist() == wanted


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits, logit_lengths, labels, label_lengths = example()
    half = tf.cast(100.0 * logits, dtype)
    with tf.GradientTape() as tape:
        tape.watch(half)
        found = ctc.ctc_loss(half, logit_lengths, tf.constant(labels), label_lengths)
    wanted, gradient = run(tf.cast(half, tf.float32).numpy(), logit_lengths, labels, label_lengths)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(tape.gradient(found, half), tf.cast(gradient, dtype))
