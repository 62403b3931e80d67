"""Greedy decoding against a row-by-row collapse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from models.ctc.alignment import greedy_spans
from models.ctc.greedy import greedy_decode, greedy_decode_spans


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


@pytest.mark.parametrize("seed", range(5))
def test_frames_and_probabilities_are_those_of_the_host(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 40, 4)).astype(np.float32)
    # Runs of several frames, across the rows' ends too.
    logits = np.repeat(logits, 2, axis=1)[:, :41]
    lengths = [41, 17, 0]
    found = [tensor.numpy() for tensor in greedy_decode_spans(tf.constant(logits), tf.constant(lengths))]
    for row, length in enumerate(lengths):
        log_probs = tf.nn.log_softmax(logits[row, :length]).numpy()
        wanted = greedy_spans(log_probs)
        tokens, count, starts, ends, probs = (array[row] for array in found)
        assert count == len(wanted)
        assert tokens[count:].tolist() == [-1] * (41 - count)
        columns = zip(tokens[:count], starts[:count], ends[:count], strict=True)
        assert [tuple(map(int, column)) for column in columns] == [span[:3] for span in wanted]
        np.testing.assert_allclose(probs[:count], [span.prob for span in wanted], rtol=1e-5)
