"""One shard and its note."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from data.common.errors import InputError
from data.shards.index import COLUMNS
from data.shards.writer import ShardTask, is_intact, read_note, write_shard
from tests.helpers.data_toys import make_task, make_utterances


@pytest.fixture
def task(tmp_path: Path) -> ShardTask:
    utterances = make_utterances(tmp_path / "audio", 4)
    (tmp_path / "out").mkdir()
    return make_task(tmp_path / "out" / "x.tfrecord", utterances)


def test_note_tells_what_was_written(task: ShardTask) -> None:
    done: list[int] = []
    note = write_shard(task, advance=done.append)
    content = Path(task.path).read_bytes()
    assert note is not None and sum(done) == 4
    assert (note["num_bytes"], note["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (note["num_encoded"], note["skipped"], list(note["columns"])) == (4, {}, list(COLUMNS))
    assert note["columns"]["text"] == ["A", "B", "C", "D"]
    assert read_note(task) == note
    assert sorted(os.listdir(Path(task.path).parent)) == [".x.tfrecord.json", "x.tfrecord"]
    assert is_intact(task, len(content), note["sha256"])
    assert not is_intact(task, len(content) + 1, note["sha256"])
    assert not is_intact(task, len(content), "0" * 64)
    assert read_note(dataclasses.replace(task, fingerprint="g")) is None
    Path(task.note_path).write_text("[")
    assert read_note(task) is None


def test_stopped_in_the_middle_leaves_nothing_and_no_old_note(task: ShardTask) -> None:
    Path(task.note_path).write_text("{}")
    answers = iter([False, False, True])
    assert write_shard(task, is_stopped=lambda: next(answers)) is None
    assert os.listdir(Path(task.path).parent) == []


def test_bad_utterances_up_to_the_limit(task: ShardTask) -> None:
    Path(task.utterances[2].audio_filepath).write_bytes(b"")
    longer = dataclasses.replace(task.utterances[0], num_samples=501)
    one = dataclasses.replace(task, utterances=task.utterances)
    note = write_shard(one)
    assert note is not None and note["columns"]["utterance_id"] == ["u0", "u1", "u3"]
    assert note["skipped"]["u2"][0] == "unreadable_audio" and "u2.flac" in note["skipped"]["u2"][1]
    two = dataclasses.replace(task, utterances=[longer, *task.utterances[1:]])
    with pytest.raises(InputError, match=r"u0\.flac has 500 samples, 501 when it was listed.*bad utterances: 2, allow"):
        write_shard(two)
    assert os.listdir(Path(task.path).parent) == ["x.tfrecord"]  # that of `one`; its note is gone


def test_unwritable_place_is_one_line(task: ShardTask, tmp_path: Path) -> None:
    lost = dataclasses.replace(task, path=str(tmp_path / "none" / "x.tfrecord"))
    with pytest.raises(OSError, match=r"cannot write .*x\.tfrecord .*: make room, or choose another --output"):
        write_shard(lost)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": None},
        {"columns": {}},
        {"columns": {"offset": [0.5]}},
        {"num_bytes": "many"},
        {"num_bytes": 1},
        {"num_encoded": 9},
        {"skipped": {"u2": "bad"}},
        {"sha256": None},
        {"error": 7},
    ],
)
def test_a_note_of_another_shape_is_as_none(task: ShardTask, change: dict[str, object]) -> None:
    note = write_shard(task)
    assert note is not None and read_note(task) == note
    if isinstance(change.get("columns"), dict) and change["columns"]:
        change = {"columns": {**note["columns"], **change["columns"]}}
    Path(task.note_path).write_text(json.dumps({**note, **change}))
    assert read_note(task) is None
