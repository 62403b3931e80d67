"""A run with too many skipped updates: where it stops and which utterances it names."""

from __future__ import annotations

import json

import pytest

from engine.actions.skip_guard import SkipGuard
from engine.common.signals import StopTraining
from engine.training.skipped_updates import SkipCounter
from tests.engine.training.test_skipped_updates import feed


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
