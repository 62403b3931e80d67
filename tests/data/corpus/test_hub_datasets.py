"""Datasets of the Hugging Face Hub, whose library is replaced by a folder."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from data.common.errors import InputError
from data.corpus.data_files import find_data_files


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str | None, list[str]]:
    """Revision -> names of the files of someone/some-speech; the fetched ones lie in a folder of the revision."""
    files: dict[str | None, list[str]] = {}

    def list_repo_files(self: Any, repo_id: str, *, repo_type: str, revision: str | None) -> list[str]:
        assert (repo_id, repo_type) == ("someone/some-speech", "dataset")
        if revision not in files:
            raise huggingface_hub.errors.RevisionNotFoundError("no such revision", response=None)  # type: ignore[arg-type]
        return files[revision]

    def snapshot_download(
        repo_id: str, *, repo_type: str, revision: str | None, allow_patterns: list[str] | None = None
    ) -> str:
        folder = tmp_path / str(revision).replace("/", "-")
        for name in files.get(revision, []):
            if allow_patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return files


NAME = "hf://datasets/someone/some-speech"
NAMES = ["README.md", "hi/train-0.parquet", "hi/test-0.parquet", "ta/train-0.parquet", "ta/x[1].parquet"]


@pytest.mark.parametrize(
    ("path", "split", "expected"),
    [
        ("/hi", "train", ["hi/train-0.parquet"]),
        ("", "train", ["hi/train-0.parquet", "ta/train-0.parquet"]),
        ("/*/test*.parquet", "", ["hi/test-0.parquet"]),
        ("/ta/x[[]1].parquet", "", ["ta/x[1].parquet"]),
    ],
)
def test_the_files_of_a_split_are_fetched_and_no_others(tmp_path, hub, path, split, expected):
    hub[None] = NAMES
    files, left = find_data_files(f"{NAME}{path}", split, (".parquet",))
    assert (files, left) == ([str(tmp_path / "None" / name) for name in expected], "")
    assert sorted(str(found.relative_to(tmp_path / "None")) for found in tmp_path.rglob("*.*")) == expected


def test_a_revision_is_fetched(tmp_path, hub):
    hub["v2"] = ["train.parquet"]
    assert find_data_files(f"{NAME}@v2", "train", (".parquet",))[0] == [str(tmp_path / "v2/train.parquet")]
    assert hub.keys() == {"v2"}


def test_a_dataset_of_other_files_is_read_as_the_hub_converted_it(tmp_path, hub):
    hub |= {None: ["train.zip"], "refs/convert/parquet": ["default/train/0000.parquet"]}
    files, _ = find_data_files(NAME, "train", (".parquet",))
    assert files == [str(tmp_path / "refs-convert-parquet/default/train/0000.parquet")]


def test_without_the_network_the_fetched_files_are_read(tmp_path, hub, monkeypatch):
    hub[None] = NAMES
    find_data_files(f"{NAME}/hi", "train", (".parquet",))
    hub.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    files, _ = find_data_files(f"{NAME}/hi", "train", (".parquet",))
    assert files == [str(tmp_path / "None/hi/train-0.parquet")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://datasets/alone", "not a dataset; write hf://datasets/OWNER/NAME"),
        (f"{NAME}/none", r"has no file with \*\.parquet: check the name"),
        (f"{NAME}@v9", r"cannot be fetched \(.*\): check the name and the network, log in with `hf auth login`"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, name, message):
    hub |= {None: NAMES, "refs/convert/parquet": []}
    with pytest.raises(InputError, match=message) as caught:
        find_data_files(name, "", (".parquet",))
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)
