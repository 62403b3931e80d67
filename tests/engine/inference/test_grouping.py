"""Rows of like lengths together."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.inference.grouping import ON_ACCELERATOR, ON_CPU, Grouping, group_by_length, suitable_grouping


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.0, [[2], [0, 4], [3], [1]]),
        # 100 + 90 + 90 of 300 are 6.7 % padding; with the 50, 17.5 %; 50 + 40 of 100 would be 10 %.
        (0.1, [[2, 0, 4], [3, 1]]),
        (1.0, [[2, 0, 4, 3, 1]]),
    ],
)
def test_groups_hold_no_more_padding_than_allowed(ratio, expected):
    assert group_by_length([90, 40, 100, 50, 90], Grouping(max_padding_ratio=ratio)) == expected


def test_no_rows_are_no_groups():
    assert group_by_length([], Grouping(max_padding_ratio=0.1)) == []
    assert group_by_length([0, 0], Grouping(max_padding_ratio=0.1)) == [[0, 1]]


def test_every_row_is_in_one_group_and_padding_is_bounded():
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    groups = group_by_length(lengths, Grouping(max_padding_ratio=0.1))
    assert sorted(row for group in groups for row in group) == list(range(200))
    for group in groups:
        assert sum(lengths[row] for row in group) >= 0.9 * len(group) * max(lengths[row] for row in group)


@pytest.mark.parametrize(
    ("max_samples", "expected"), [(0, [[0, 1, 2, 3]]), (200, [[0, 1], [2, 3]]), (50, [[0], [1], [2], [3]])]
)
def test_groups_of_several_rows_stay_below_the_limit(max_samples, expected):
    assert group_by_length([100] * 4, Grouping(max_padding_ratio=0.1, max_samples=max_samples)) == expected


def test_accelerators_take_two_minutes_at_a_time(monkeypatch):
    assert suitable_grouping() == ON_CPU
    lengths = [480_000, 16_000, 320_000]
    assert group_by_length(lengths, ON_CPU) == [[0], [2], [1]]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"] if kind == "GPU" else [])
    assert suitable_grouping() == ON_ACCELERATOR
    assert group_by_length(lengths, ON_ACCELERATOR) == [[0, 2, 1]]
    assert [len(group) for group in group_by_length([246_000] * 20, ON_ACCELERATOR)] == [8, 8, 4]
