"""Bucket boundaries waste as little as can be; rows are cut into batches without loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches.buckets import checked_lengths, choose_bucket_boundaries, cut_batches, rows_within
from data.common.errors import InputError


@settings(max_examples=60)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.integers(1, 4))
def test_boundaries_waste_as_little_as_the_best_of_all_choices(num_samples, num_buckets):
    def padded(boundaries):
        return sum(min(b for b in boundaries if b >= length) for length in num_samples)

    boundaries = choose_bucket_boundaries(num_samples, num_buckets, resolution=10)
    top = -(-max(num_samples) // 10) * 10
    lower = range(10, top, 10)
    best = min(
        padded((*chosen, top))
        for count in range(min(num_buckets, len(lower) + 1))
        for chosen in itertools.combinations(lower, count)
    )
    assert len(boundaries) <= num_buckets and boundaries[-1] == top
    assert list(boundaries) == sorted(set(boundaries))
    assert all(boundary % 10 == 0 for boundary in boundaries)
    assert padded(boundaries) == best


def test_no_bucket_and_no_resolution_are_refused():
    for arguments in ({"num_buckets": 0}, {"num_buckets": 2, "resolution": 0}):
        with pytest.raises(ValueError, match="both must be >= 1"):
            choose_bucket_boundaries([10], **arguments)


def test_the_rows_of_a_bucket_are_as_many_as_fit_and_a_multiple():
    boundaries = np.array([16_000, 32_000, 112_000])
    assert rows_within(boundaries, max_batch_samples=320_000, row_multiple=1).tolist() == [20, 10, 2]
    assert rows_within(boundaries, max_batch_samples=320_000, row_multiple=2).tolist() == [20, 10, 2]
    assert rows_within(boundaries, max_batch_samples=500_000, row_multiple=4).tolist() == [28, 12, 4]
    with pytest.raises(InputError, match=r"max_batch_secs=20 holds 2 rows of the longest bucket, 7 s, fewer .*=3"):
        rows_within(boundaries, max_batch_samples=320_000, row_multiple=3)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4)), min_size=1, max_size=6), st.integers(1, 5))
def test_cutting_takes_every_row_and_leaves_less_than_a_batch(buckets, smallest):
    counts = np.array([count for count, _ in buckets])
    rows = smallest + np.cumsum([step for _, step in buckets])[::-1]
    if not counts.any():
        counts[0] = 1
    full, left = cut_batches(counts, rows)
    assert rows[full].sum() + left == counts.sum()
    assert left < rows[np.flatnonzero(counts)[-1]]
    # A batch of a bucket ends with a row of this bucket or a smaller one: its rows fit.
    ends = np.cumsum(rows[full]) - 1
    assert np.all(np.repeat(np.arange(len(counts)), counts)[ends] <= full)


def test_lengths_that_cannot_be_are_refused():
    assert checked_lengths([3, 1]).tolist() == [3, 1]
    for lengths, words in (([], "no utterances"), ([2, 0], "1 utterances are empty, first index 1")):
        with pytest.raises(InputError, match=words):
            checked_lengths(lengths)
