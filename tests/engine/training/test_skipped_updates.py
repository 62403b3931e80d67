"""Skipped updates in a row: what counts, what stops, what is left behind."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from engine.common.signals import StopTraining
from engine.training.skipped_updates import SkipCounter, SkipGuard


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
    with pytest.raises(ValueError, match="train.max_skipped_in_a_row must be at least 0, got -1"):
        SkipCounter(limit=-1)


def test_the_guard_names_updates_and_utterances_in_a_file_that_its_line_names(tmp_path):
    counter = SkipCounter(limit=2)
    guard = SkipGuard(counter=counter, utterance_ids_of=lambda update: [f"u{update}a", f"u{update}b"], workdir=tmp_path)
    feed(counter, "as")
    guard({})
    feed(counter, "s", start=2)
    with pytest.raises(StopTraining) as reason:
        guard({})
    path = tmp_path / "skipped_updates.jsonl"
    assert "2 updates in a row, 1 to 2, had a loss or gradient that is not finite" in str(reason.value)
    assert str(path) in str(reason.value)
    assert "\n" not in str(reason.value)
    assert [json.loads(line) for line in path.open()] == [
        {"update": 1, "utterance_ids": ["u1a", "u1b"]},
        {"update": 2, "utterance_ids": ["u2a", "u2b"]},
    ]


def test_a_worker_that_is_not_the_chief_stops_too_and_writes_nothing(tmp_path):
    counter = SkipCounter(limit=2)
    guard = SkipGuard(counter=counter, utterance_ids_of=lambda update: ["u"], workdir=tmp_path, is_chief=False)
    feed(counter, "ss")
    with pytest.raises(StopTraining, match="2 updates in a row, 0 to 1"):
        guard({})
    assert list(tmp_path.iterdir()) == []
    guard({})  # forgotten here as there: the workers go on alike
