"""Finding and reading the index beside the shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import InputError
from data.index import file_sha256, find_index, has_size, read_index, verify_shards


def write_index(folder: Path, split: str, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(f'{{"format_version": {version}, "split": "{split}"}}')


def test_split_is_the_folder_below_or_the_folder_itself(tmp_path: Path) -> None:
    write_index(tmp_path / "dev", "dev-clean")
    write_index(tmp_path / "train", "")
    assert find_index(tmp_path, "dev") == str(tmp_path / "dev")
    assert find_index(tmp_path / "dev", "dev-clean") == str(tmp_path / "dev")
    assert find_index(tmp_path / "dev", "") == str(tmp_path / "dev")
    with pytest.raises(InputError, match="holds the split 'dev-clean', not 'test'"):
        find_index(tmp_path / "dev", "test")
    with pytest.raises(InputError, match=r"no .*test/index\.json: make it with python -m data"):
        find_index(tmp_path, "test")


def test_other_versions_and_other_files_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path, "", version=99)
    with pytest.raises(InputError, match="has format version 99, wanted 2"):
        read_index(tmp_path)
    for content in ("{", "[]", "{}"):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(InputError, match=r"index\.json is no index of shards"):
            read_index(tmp_path)


def test_size_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert has_size(tmp_path / "a", 3)
    assert not has_size(tmp_path / "a", 4)
    assert not has_size(tmp_path / "b", 0)


def test_shards_that_differ_from_their_checksum_are_named(tmp_path: Path) -> None:
    names = ["a.tfrecord", "b.tfrecord", "c.tfrecord", "d.tfrecord"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    shards = [{"name": name, "num_bytes": 10, "sha256": file_sha256(tmp_path / name)} for name in names]
    (tmp_path / "index.json").write_text(json.dumps({"format_version": 2, "split": "x", "shards": shards}))
    assert verify_shards(tmp_path) == verify_shards(tmp_path, split="x") == {}
    (tmp_path / "b.tfrecord").write_bytes(b"b.tfrecore")
    (tmp_path / "c.tfrecord").unlink()
    problems = verify_shards(tmp_path)
    assert list(problems) == ["b.tfrecord", "c.tfrecord"]
    assert "b.tfrecord is not what was written, its checksum is off: run" in problems["b.tfrecord"]
    assert "c.tfrecord is missing" in problems["c.tfrecord"]
    with pytest.raises(InputError, match="holds the split 'x', not 'y'"):
        verify_shards(tmp_path, split="y")


def test_checksum_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "a") == digest
