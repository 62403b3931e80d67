"""What an interruption leaves, and what the next process makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.common.journal import Journal, journal_path

ROWS = [{"name": f"{number}.wav", "labels": []} for number in range(3)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "deep/out.jsonl.partial")


def test_rows_are_there_for_the_next_process(path):
    with Journal(path, {"speed": 1.0}) as journal:
        assert journal.num_rows == 0
        journal.append(ROWS[:2])
    with Journal(path, {"speed": 1.0}) as journal:
        assert journal.num_rows == 2
        journal.append(ROWS[2:])
        assert list(journal.rows()) == ROWS


@pytest.mark.parametrize("num_bytes", [1, 10, 31])
def test_a_line_that_was_cut_off_counts_as_not_done(path, num_bytes):
    with Journal(path, {}) as journal:
        journal.append(ROWS)
    with open(path, "rb+") as file:
        file.truncate(file.seek(0, 2) - num_bytes)
    with Journal(path, {}) as journal:
        assert journal.num_rows == 2
        journal.append(ROWS[2:])
        assert list(journal.rows()) == ROWS


def test_a_first_line_that_was_cut_off_is_a_new_beginning(path):
    Path(path).parent.mkdir()
    Path(path).write_bytes(b'{"set')
    with Journal(path, {"speed": 2.0}) as journal:
        journal.append(ROWS)
    with Journal(path, {"speed": 2.0}) as journal:
        assert journal.num_rows == 3


def test_other_settings_are_named(path):
    with Journal(path, {"speed": 1.0, "inputs": ["a"]}) as journal:
        journal.append(ROWS)
    with pytest.raises(
        ValueError, match=r"other settings \(speed was 1.0, is 1.1\): give that command again, or delete"
    ):
        Journal(path, {"speed": 1.1, "inputs": ["a"]}).__enter__()
    with Journal(path, {"speed": 1.0, "inputs": ["a"]}) as journal:
        assert journal.num_rows == 3


def test_a_second_process_is_told_to_wait(path):
    with (
        Journal(path, {}),
        pytest.raises(ValueError, match="another process is writing it"),
    ):
        Journal(path, {}).__enter__()


def test_a_damaged_line_is_named(path):
    with Journal(path, {}) as journal:
        journal.append(ROWS)
    with open(path, "rb+") as file:
        content = file.read().replace(b'{"name": "1.wav"', b'{"name: "1.wav"')
        file.seek(0)
        file.write(content)
        file.truncate()
    with pytest.raises(ValueError, match=r"partial:3 .*; delete the file to begin anew"):
        Journal(path, {}).__enter__()


def test_settings_alone_bind_nobody(path):
    with Journal(path, {"speed": 1.0}):
        assert Path(path).exists()  # and ends before its first row
    assert not Path(path).exists()
    with Journal(path, {"speed": 2.0}) as journal:
        journal.append(ROWS[:1])
    with pytest.raises(ValueError, match="speed was 2.0, is 1.0"):
        Journal(path, {"speed": 1.0}).__enter__()


def test_it_lies_beside_what_the_command_writes_or_on_this_machine(monkeypatch, tmp_path):
    assert journal_path("out.jsonl", mode="align") == "out.jsonl.partial"
    assert journal_path("/folder/", mode="align") == "/folder.partial"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = {journal_path(f"gs://bucket/{name}", mode=mode) for name in "ab" for mode in ("align", "segment")}
    assert len(found) == 4 and all(path.startswith(f"{tmp_path}/earshot-") for path in found)
