"""Frames of tokens: against the greedy decoder, against brute force over all paths, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ctc.alignment import TokenSpan, collapse_path, forced_align
from models.ctc.greedy import greedy_decode


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_a_path_by_hand():
    tokens = np.array([0, 2, 2, 0, 2, 1, 1, 1, 0])
    probs = np.array([0.9, 0.5, 0.7, 0.9, 0.8, 0.3, 0.6, 0.9, 1.0])
    found = collapse_path(tokens, probs)
    assert [span[:3] for span in found] == [(2, 1, 3), (2, 4, 5), (1, 5, 8)]
    np.testing.assert_allclose([span.prob for span in found], [0.6, 0.8, 0.6])


@pytest.mark.parametrize("tokens", [[], [0, 0, 0]])
def test_a_path_of_nothing(tokens):
    assert collapse_path(np.array(tokens, int), np.ones(len(tokens))) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(max_examples=50)
def test_tokens_are_those_of_the_greedy_decoder(path):
    logits = np.eye(4, dtype=np.float32)[path][np.newaxis]
    tokens, count = greedy_decode(tf.constant(logits), tf.constant([len(path)]))
    spans = collapse_path(np.array(path), np.ones(len(path)))
    assert [span.token for span in spans] == tokens.numpy()[0, : count.numpy()[0]].tolist()
    for before, after in itertools.pairwise(spans):
        assert before.start_frame < before.end_frame <= after.start_frame


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2], [3, 3, 1]])
def test_alignment_is_the_best_of_all_paths(labels):
    rng = np.random.default_rng(len(labels))
    log_probs = log_softmax(rng.normal(size=(6, 4)) * 2)
    best_score, best_path = -np.inf, ()
    for path in itertools.product(range(4), repeat=6):
        if [key for key, _ in itertools.groupby(path) if key] != labels:
            continue
        score = sum(log_probs[frame, token] for frame, token in enumerate(path))
        if score > best_score:
            best_score, best_path = score, path
    probs = np.exp([log_probs[frame, token] for frame, token in enumerate(best_path)])
    expected = collapse_path(np.array(best_path), probs)
    found, log_prob = forced_align(log_probs, labels)
    assert log_prob == pytest.approx(best_score)
    assert [span[:3] for span in found] == [span[:3] for span in expected]
    np.testing.assert_allclose([s.prob for s in found], [s.prob for s in expected], rtol=1e-12)


def test_alignment_of_the_greedy_text_is_the_greedy_path():
    log_probs = log_softmax(np.random.default_rng(1).normal(size=(60, 8)) * 3)
    tokens = log_probs.argmax(-1)
    spans = collapse_path(tokens, np.exp(log_probs.max(-1)))
    assert len(spans) > 20
    assert [s[:3] for s in forced_align(log_probs, [s.token for s in spans]).spans] == [s[:3] for s in spans]


def test_labels_that_just_fit_and_one_too_many():
    log_probs = log_softmax(np.zeros((3, 3)))
    third = pytest.approx(1 / 3)
    assert forced_align(log_probs, [1, 1]).spans == [TokenSpan(1, 0, 1, third), TokenSpan(1, 2, 3, third)]
    with pytest.raises(ValueError, match="3 labels with 1 adjacent repeats do not fit 3 frames"):
        forced_align(log_probs, [1, 1, 2])
    assert forced_align(log_probs, []) == ([], pytest.approx(3 * np.log(1 / 3)))


def test_a_lattice_that_would_fill_the_memory_is_refused():
    log_probs = np.broadcast_to(np.zeros((1, 3), np.float32), (100_000, 3))
    with pytest.raises(ValueError, match="too many to align at once"):
        forced_align(log_probs, [1, 2] * 6000)
