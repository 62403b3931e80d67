"""Skipped updates in a row: which count, and when there are too many."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.training.skipped_updates import SkipCounter


def feed(counter, pattern, start=0):
    """`pattern`: a for an applied update, s for a skipped one, f for one skipped without fault."""
    step = tf.function(counter.update)
    for i, letter in enumerate(pattern):
        step(
            is_applied=tf.constant(letter == "a"),
            is_no_fault=tf.constant(letter == "f"),
            update=tf.constant(start + i, tf.int64),
        )


@pytest.mark.parametrize(
    ("pattern", "updates"),
    [
        ("aaa", []),
        ("ssass", []),
        ("asss", [1, 2, 3]),
        ("assssss", [1, 2, 3]),  # the first three that were too many, even if more followed
        ("asssa", [1, 2, 3]),  # and even if the next one was good again
        ("f" * 15, []),  # float16 halves its scale fifteen times
        ("ffssfa", []),
        ("fffsss", [3, 4, 5]),  # the scale is at its end: now it is the loss itself
    ],
)
def test_the_limit_is_three_in_a_row(pattern, updates):
    counter = SkipCounter(limit=3)
    feed(counter, pattern)
    assert list(counter.take()) == updates
    assert list(counter.take()) == []


def test_a_row_that_spans_two_loops_counts():
    counter = SkipCounter(limit=3)
    feed(counter, "ass")
    assert list(counter.take()) == []
    feed(counter, "s", start=3)
    assert list(counter.take()) == [1, 2, 3]


def test_no_limit_never_stops_and_a_negative_one_is_refused():
    counter = SkipCounter(limit=0)
    feed(counter, "s" * 50)
    assert list(counter.take()) == []
    assert int(counter.count) == 50
    with pytest.raises(ValueError, match="train.max_consecutive_skips must be at least 0, got -1"):
        SkipCounter(limit=-1)
