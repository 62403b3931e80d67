"""Greedy decoding against a row-by-row collapse."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from models.decoding import greedy_decode


def test_decoding_merges_repeats_then_drops_blanks_within_the_length():
    path = [[1, 1, 0, 1, 2, 2, 0, 0, 3, 3], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]]
    tokens, counts = greedy_decode(tf.one_hot(path, 5), tf.constant([9, 10, 0]))
    assert tokens.numpy().tolist() == [[1, 1, 2, 3] + [-1] * 6, [-1] * 10, [-1] * 10]
    assert counts.numpy().tolist() == [4, 0, 0]


def test_decoding_equals_the_plain_collapse_on_random_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 50, 4)).astype(np.float32)
    lengths = rng.integers(0, 51, size=20)
    tokens, counts = tf.function(greedy_decode)(tf.constant(logits), tf.constant(lengths))
    for row in range(20):
        best = logits[row, : lengths[row]].argmax(-1)
        wanted = [token for token, _ in itertools.groupby(best.tolist()) if token != 0]
        assert tokens[row, : counts[row]].numpy().tolist() == wanted


def test_another_blank_can_be_named():
    tokens, counts = greedy_decode(tf.one_hot([[0, 3, 0, 0]], 4), tf.constant([4]), blank_id=3)
    assert tokens.numpy().tolist() == [[0, 0, -1, -1]]
    assert counts.numpy().tolist() == [2]
