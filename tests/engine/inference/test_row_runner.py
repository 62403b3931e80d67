"""Rows through a step that takes batches: order, padding, several at a time, faults."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf

from engine.inference.grouping import Grouping, in_few_shapes
from engine.inference.row_runner import PADDING_SAMPLES, RowRunner


def rows(*lengths):
    return [np.full(length, float(number + 1), np.float32) for number, length in enumerate(lengths)]


def sums(padded, lengths):
    """A frame for every thousand samples, each the sum of the row."""
    frames = tf.constant(lengths // 1000)
    return tf.tile(tf.reduce_sum(tf.constant(padded), 1, keepdims=True), [1, int(padded.shape[1] // 1000)]), frames


@pytest.mark.parametrize("num_at_once", [1, 2])
def test_each_row_gets_what_it_gets_alone_in_the_order_given(num_at_once):
    seen = []

    def step(padded, lengths):
        seen.append((padded.shape, lengths.tolist()))
        return sums(padded, lengths)

    runner = RowRunner(step, Grouping(max_padding_ratio=0.1, num_at_once=num_at_once))
    lengths = (2_000, 31_000, 3_000, 30_000)
    found = runner.submit(rows(*lengths))()
    assert [len(row) for row in found] == [2, 31, 3, 30]
    assert [row[0] for row in found] == [2_000.0, 62_000.0, 9_000.0, 120_000.0]
    wanted = [((2, 2 * PADDING_SAMPLES), [31_000, 30_000]), ((1, PADDING_SAMPLES), [3_000]),
              ((1, PADDING_SAMPLES), [2_000])]  # fmt: skip
    assert sorted(seen, reverse=True) == wanted
    assert runner.submit([])() == []


def test_batches_of_a_compiled_step_have_few_shapes_and_the_same_results():
    seen = set()

    def step(padded, lengths):
        seen.add(padded.shape)
        return sums(padded, lengths)

    grouping = in_few_shapes(Grouping(max_padding_ratio=1.0), longest=160_000, num_rows=3)
    runner = RowRunner(step, grouping)
    for lengths in ((160_000, 2_000), (80_001,), (80_000, 3_000, 4_000), (39_000, 5_000, 6_000, 7_000), (20_000,)):
        found = runner.submit(rows(*lengths))()
        assert [len(row) for row in found] == [length // 1000 for length in lengths]
        assert [row[0] for row in found] == [length * (number + 1) for number, length in enumerate(lengths)]
    assert seen == {(3, 160_000), (3, 80_000), (3, 40_000), (3, 20_000)}
    seen.clear()
    runner.submit(rows(160_001, 3_000))()  # a row that is longer than all has a shape of its own
    assert seen == {(1, 176_000), (3, 20_000)}


def test_batches_of_a_compiled_step_have_as_many_rows_as_suit_their_length():
    grouping = in_few_shapes(Grouping(max_padding_ratio=1.0, max_samples=200_000), longest=160_000, num_rows=8)
    assert grouping.shapes == ((8, 20_000), (5, 40_000), (2, 80_000), (1, 160_000))


def test_two_groups_really_run_at_once():
    both = threading.Barrier(2, timeout=30)

    def step(padded, lengths):
        both.wait()  # breaks where one waits for the other to end
        return sums(padded, lengths)

    runner = RowRunner(step, Grouping(max_padding_ratio=0.0, num_at_once=2))
    assert [len(row) for row in runner.submit(rows(1_000, 40_000))()] == [1, 40]


def test_what_fails_is_raised_where_it_is_collected_and_the_next_rows_are_done():
    def step(padded, lengths):
        if padded.shape[1] > PADDING_SAMPLES:
            raise ValueError("too long")
        return sums(padded, lengths)

    runner = RowRunner(step, Grouping(max_padding_ratio=0.0, num_at_once=2))
    bad, good = runner.submit(rows(40_000)), runner.submit(rows(5_000))
    with pytest.raises(ValueError, match="too long"):
        bad()
    assert [len(row) for row in good()] == [5]
