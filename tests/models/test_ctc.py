"""CTC loss: both back ends against each other and against brute force; which rows can be aligned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from models import ctc


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


@pytest.mark.parametrize("backend", ["sparse", "dense"])
@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], []])
def test_loss_is_the_summed_probability_of_all_paths(backend, labels):
    logits = np.random.default_rng(1).normal(size=(1, 4, 3)).astype(np.float32)
    log_probs = tf.nn.log_softmax(logits[0]).numpy()
    padded = np.array([labels + [0] * (3 - len(labels))], np.int32)
    found = ctc.ctc_loss(tf.constant(logits), [4], tf.constant(padded), [len(labels)], backend=backend)
    np.testing.assert_allclose(found.numpy()[0], brute_force(log_probs, labels), rtol=1e-5)


def test_back_ends_agree_in_loss_and_gradient():
    logits, logit_lengths, labels, label_lengths = example()
    results = {}
    for backend in ("sparse", "dense"):
        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = ctc.ctc_loss(x, logit_lengths, tf.constant(labels), label_lengths, backend=backend)
        results[backend] = losses.numpy(), tape.gradient(losses, x).numpy()
    np.testing.assert_allclose(results["sparse"][0], results["dense"][0], rtol=1e-5)
    np.testing.assert_allclose(results["sparse"][1], results["dense"][1], atol=2e-5)
    assert (results["sparse"][0][[0, 1, 2, 4]] > 1.0).all()


@pytest.mark.parametrize("backend", ["sparse", "dense"])
def test_infeasible_rows_have_no_loss_and_no_gradient(backend):
    logits, logit_lengths, labels, label_lengths = example()
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses = ctc.ctc_loss(x, logit_lengths, tf.constant(labels), label_lengths, backend=backend)
    gradient = tape.gradient(losses, x).numpy()
    assert losses.numpy()[[3, 5]].tolist() == [0.0, 0.0]
    assert not gradient[[3, 5]].any()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("backend", ["sparse", "dense"])
def test_frames_past_the_length_have_no_gradient(backend):
    logits, logit_lengths, labels, label_lengths = example()
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses = ctc.ctc_loss(x, logit_lengths, tf.constant(labels), label_lengths, backend=backend)
    gradient = tape.gradient(losses, x).numpy()
    assert np.abs(gradient[1, :20]).max() > 0.01
    assert np.abs(gradient[1, 20:]).max() == 0.0


def test_feasible_counts_labels_and_adjacent_repeats():
    labels = tf.constant([[1, 2, 3], [1, 1, 2], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    lengths = [3, 3, 3, 2, 0, 0]
    frames = [3, 3, 5, 3, 1, 0]
    # 3 <= 3; 3 + 1 > 3; 3 + 2 <= 5; the third label of row 3 is padding: 2 + 1 <= 3; empty; no frames.
    wanted = [True, False, True, True, True, False]
    assert ctc.feasible(labels, lengths, frames).numpy().tolist() == wanted


def test_half_precision_logits_are_computed_in_float32():
    logits, logit_lengths, labels, label_lengths = example()
    half = tf.cast(logits, tf.bfloat16)
    found = ctc.ctc_loss(half, logit_lengths, tf.constant(labels), label_lengths)
    wanted = ctc.ctc_loss(tf.cast(half, tf.float32), logit_lengths, tf.constant(labels), label_lengths)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_unknown_back_end_is_refused():
    with pytest.raises(ValueError, match="cuda"):
        ctc.ctc_loss(tf.zeros([1, 2, 3]), [2], tf.ones([1, 1], tf.int32), [1], backend="cuda")


def test_back_end_without_accelerator_is_the_sparse_kernel():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert ctc.choose_backend() == "sparse"
