"""Finding and reading the index beside the shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from data.index import find_index, has_size, read_index


def write_index(folder: Path, split: str, version: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(f'{{"format_version": {version}, "split": "{split}"}}')


def test_split_is_the_folder_below_or_the_folder_itself(tmp_path: Path) -> None:
    write_index(tmp_path / "dev", "dev-clean")
    write_index(tmp_path / "train", "")
    assert find_index(tmp_path, "dev") == tmp_path / "dev"
    assert find_index(tmp_path / "dev", "dev-clean") == tmp_path / "dev"
    assert find_index(tmp_path / "dev", "") == tmp_path / "dev"
    with pytest.raises(InputError, match="holds the split 'dev-clean', not 'test'"):
        find_index(tmp_path / "dev", "test")
    with pytest.raises(InputError, match=r"no .*test/index\.json: make it with python -m data"):
        find_index(tmp_path, "test")


def test_other_versions_and_other_files_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path, "", version=99)
    with pytest.raises(InputError, match="has format version 99, wanted 1"):
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
