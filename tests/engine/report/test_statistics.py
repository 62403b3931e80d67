"""Intervals and tests against what theory says of normal numbers, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.report.statistics import compare_errors, pieces_of, rate_interval


def test_the_interval_is_as_wide_as_the_spread_of_the_utterances_says():
    errors = np.random.default_rng(1).binomial(10, 0.2, size=400)
    found = rate_interval(errors.tolist(), [10] * 400, [""] * 400)
    half = 1.96 * errors.std(ddof=1) / 10 / math.sqrt(400)
    rate = errors.mean() / 10
    assert found.low == pytest.approx(rate - half, abs=0.15 * half)
    assert found.high == pytest.approx(rate + half, abs=0.15 * half)


def test_speakers_are_drawn_whole_where_there_are_enough_of_them():
    # All utterances of a speaker are alike: nine of them tell no more than one.
    by_speaker = np.random.default_rng(2).integers(0, 6, size=40)
    errors, words = np.repeat(by_speaker, 9).tolist(), [10] * 360
    speakers = np.repeat([f"s{i}" for i in range(40)], 9).tolist()
    wide, narrow = rate_interval(errors, words, speakers), rate_interval(errors, words, [""] * 360)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(3.0, rel=0.15)
    pieces, is_speakers = pieces_of(["b", "a", "b"])
    assert (pieces.tolist(), is_speakers) == ([0, 1, 2], False)
    pieces, is_speakers = pieces_of([*"abcdefghij", "a"])
    assert (pieces[0] == pieces[-1], len(set(pieces.tolist())), is_speakers) == (True, 10, True)
    assert pieces_of([*"abcdefghij", ""])[1] is False


def test_nothing_is_known_of_the_spread_of_one_utterance_or_none():
    assert rate_interval([1], [2], ["a"]) is None and rate_interval([], [], []) is None
    assert rate_interval([0, 0, 0], [5, 5, 5], [""] * 3) is None  # it would be 0 to 0, however few words there are
    assert rate_interval([1, 2, 3], [1, 2, 3], [""] * 3) is None  # so would a model be that says nothing
    assert compare_errors([3, 2], [3, 2], [5, 5], [""] * 2).interval is None
    found = compare_errors([1], [0], [2], ["a"])
    assert (found.difference, found.interval, found.p_value, found.is_significant) == (-0.5, None, None, False)
    assert compare_errors([], [], [], []).difference == 0.0
    assert rate_interval([0, 1], [0, 0], ["", ""]).high == 2.0  # no word was said: insertions alone


def test_matched_pairs_give_the_p_value_of_the_normal_test_where_pieces_are_many():
    generator = np.random.default_rng(3)
    one, other = generator.binomial(10, 0.2, size=1_000), generator.binomial(10, 0.18, size=1_000)
    difference = other - one
    z = difference.mean() / (difference.std(ddof=1) / math.sqrt(1_000))
    found = compare_errors(one.tolist(), other.tolist(), [10] * 1_000, [""] * 1_000)
    assert found.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=0.05)
    assert found.difference == pytest.approx(difference.sum() / 10_000)
    assert found.interval.low < found.difference < found.interval.high
    # The ratio of resamples below zero is the normal's beyond z.
    assert found.better_ratio == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), abs=0.02)
    assert found.is_significant == (found.p_value < 0.05)


def test_equal_systems_do_not_differ_and_signs_alone_need_many_utterances():
    assert compare_errors([3, 0, 2], [3, 0, 2], [5, 5, 5], [""] * 3).p_value == 1.0
    assert compare_errors([2, 2, 2], [1, 1, 1], [5, 5, 5], [""] * 3).p_value == 0.25
    assert compare_errors([2] * 8, [1] * 8, [5] * 8, [""] * 8).is_significant
