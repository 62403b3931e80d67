"""Span masks: how much, where, and never past the end of a row."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.ops.keyed_random import UpdateRandom
from models.wav2vec2.masking import span_mask


def draw(*, lengths, prob, span_length, num_positions=200, update=0, row_ids=None, min_spans=0):
    row_ids = tf.range(len(lengths)) if row_ids is None else tf.constant(row_ids)
    return span_mask(
        num_positions=num_positions,
        lengths=tf.constant(lengths),
        prob=prob,
        span_length=span_length,
        random=UpdateRandom(seed=0, update=tf.constant(update), row_ids=row_ids),
        stream=1,
        min_spans=min_spans,
    ).numpy()


def runs(row):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_nothing_is_masked_past_a_row_and_spans_are_whole():
    lengths = [200, 57, 10, 9, 0]
    mask = draw(lengths=lengths, prob=0.3, span_length=10)
    for row, length in zip(mask, lengths, strict=True):
        assert not row[length:].any()
        assert all(run >= 10 for run in runs(row))
    assert not mask[3].any()  # shorter than one span
    assert not mask[4].any()


def test_expected_number_of_spans_is_exact_on_average():
    # One start fits: 10 positions, spans of 10, so a row is masked with probability prob * 10 / 10.
    mask = draw(lengths=[10] * 2000, prob=0.35, span_length=10, num_positions=10)
    assert set(mask.sum(axis=1)) == {0, 10}
    assert abs(mask.any(axis=1).mean() - 0.35) < 0.04


def test_single_position_spans_mask_exactly_their_share():
    mask = draw(lengths=[200] * 4, prob=0.25, span_length=1)
    np.testing.assert_array_equal(mask.sum(axis=1), 50)


def test_starts_are_spread_evenly():
    mask = draw(lengths=[100] * 3000, prob=0.01, span_length=1, num_positions=100)
    share = mask.mean(axis=0)
    # 3,000 draws of probability 0.01: standard error 0.0018.
    assert share.max() < 0.02
    assert share.min() > 0.002


def test_each_update_draws_afresh_and_a_row_keeps_its_mask_in_any_batch():
    together = draw(lengths=[200, 150, 100], prob=0.3, span_length=5, row_ids=[4, 5, 6])
    alone = draw(lengths=[150], prob=0.3, span_length=5, row_ids=[5], num_positions=160)
    np.testing.assert_array_equal(alone[0, :150], together[1, :150])
    other = draw(lengths=[200, 150, 100], prob=0.3, span_length=5, row_ids=[4, 5, 6], update=1)
    assert (together != other).any(axis=1).all()


def test_a_row_has_the_fewest_number_of_spans_where_they_fit_side_by_side():
    lengths = [400] * 100 + [20] * 100 + [19] * 100 + [9] * 100
    mask = draw(lengths=lengths, prob=0.001, span_length=10, num_positions=400, min_spans=2)
    starts = [len(runs(row)) for row in mask[:100]]
    assert max(starts) == 2 and np.mean(starts) > 1.8  # two spans of 400 positions seldom touch
    assert mask[100:200].sum(axis=1).min() > 10  # two different starts of eleven
    assert (mask[200:300].sum(axis=1) == 10).all()  # one span of ten fits beside none
    assert not mask[300:].any()


def test_the_fewest_number_of_spans_changes_no_row_that_has_as_many():
    lengths = [200, 150, 100]
    wanted = draw(lengths=lengths, prob=0.5, span_length=5)
    np.testing.assert_array_equal(draw(lengths=lengths, prob=0.5, span_length=5, min_spans=2), wanted)


def test_a_ratio_above_one_masks_more():
    shares = [draw(lengths=[200] * 50, prob=prob, span_length=10).mean() for prob in (0.65, 1.625)]
    assert 0.4 < shares[0] < 0.55 and 0.75 < shares[1] < 0.9
