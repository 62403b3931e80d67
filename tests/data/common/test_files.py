"""Atomic writing, and the lock of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.common.errors import InputError
from data.common.files import only_writer, write_text_atomic


def test_writes_and_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_text_atomic(path, "1\n")
    write_text_atomic(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert os.listdir(path.parent) == ["a.json"]


def test_a_failing_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process is writing")
    with only_writer(tmp_path), refused, only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass
    assert os.listdir(tmp_path) == []
