"""Finding and reading the index beside the shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.common.errors import InputError
from data.shards.index import file_sha256, find_index, has_size, read_index, verify_shards


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
        with pytest.raises(InputError, match=r"index\.json is not an index of shards"):
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
    assert "b.tfrecord is damaged, its checksum is wrong: run" in problems["b.tfrecord"]
    assert "c.tfrecord is missing" in problems["c.tfrecord"]
    with pytest.raises(InputError, match="holds the split 'x', not 'y'"):
        verify_shards(tmp_path, split="y")


def test_checksum_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "a") == digest


def whole_index() -> dict[str, Any]:
    columns = {
        "utterance_id": ["a", "b"], "speaker_id": ["", ""], "text": ["A", "B"], "num_samples": [10, 20],
        "offset": [12, 60], "length": [30, 50], "crc32": [1, 2],
    }  # fmt: skip
    return {
        "format_version": 2, "sample_rate": 16000, "split": "", "text_normalization": "none", "payload": "pcm16",
        "fingerprint": "f", "num_utterances": 2, "skipped": {"c": "missing_audio"},
        "shards": [{"name": "s", "num_bytes": 114, "sha256": "0", "num_utterances": 2, "num_encoded": 2}],
        "columns": columns,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("columns", "x", "'columns' is \"x\", not a JSON array|'columns' is \"x\", not a JSON object"),
        ("columns.offset", 0.5, "'offset' is 0.5, not a JSON array"),
        ("columns.offset", [12, 0.5], "'offset' holds 0.5"),
        ("columns.offset", [12, True], "'offset' holds true"),
        ("columns.offset", [12, 2**63], "'offset' holds 9223372036854775808"),
        ("columns.offset", [12, 65], "the record of 'b' has an impossible offset or length"),
        ("columns.offset", [-1, 60], "the record of 'a' has an impossible offset or length"),
        ("columns.length", [30, 0], "the record of 'b' has an impossible"),
        ("columns.num_samples", [10, 10**9], "the record of 'b' has an impossible offset or length"),
        ("columns.num_samples", [0, 20], "the record of 'a' has an impossible"),
        ("columns.crc32", [1, 2**32], "the record of 'b' has an impossible"),
        ("columns.text", ["A", None], "'text' holds null"),
        ("columns.text", ["A"], r"the columns have \[1, 2\] values for 2 utterances"),
        ("columns.utterance_id", ["a", "a"], "an utterance id occurs twice"),
        ("shards", {}, "'shards' is a JSON object, not a JSON array"),
        ("shards.0", 7, "a shard is 7, not a JSON object"),
        ("shards.0.name", "../x", 'the shard "../x" is not a file name'),
        ("shards.0.num_bytes", float("nan"), "'num_bytes' is NaN, not a whole number"),
        ("shards.0.num_bytes", 2**62, 'the shard "s" cannot have 2 utterances'),
        ("shards.0.num_utterances", 3, "the columns have .* values for 3 utterances"),
        ("shards.0.num_utterances", 10**14, 'the shard "s" cannot have 100000000000000 utterances'),
        ("num_utterances", 3, "'num_utterances' is 3, but 2 are listed"),
        ("payload", "mp3", "'payload' is \"mp3\", not pcm16 or flac"),
        ("skipped", {"c": 1}, "'skipped' is not utterance id -> code"),
        ("format_version", True, "'format_version' is true, not a whole number"),
    ],
)
def test_a_damaged_index_is_refused_with_what_is_wrong(tmp_path: Path, place: str, value: object, reason: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(whole_index()))
    assert read_index(tmp_path, whole=True) == whole_index()
    index: Any = whole_index()
    item, keys = index, place.split(".")
    for key in keys[:-1]:
        item = item[int(key) if key.isdigit() else key]
    item[int(keys[-1]) if keys[-1].isdigit() else keys[-1]] = value
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=rf"index\.json is not an index of shards \(.*({reason})") as caught:
        read_index(tmp_path, whole=True)
    assert str(caught.value).endswith(": delete it and run python -m data.prepare again")


def test_an_index_with_the_old_name_of_a_field_is_read(tmp_path: Path) -> None:
    index = {**whole_index(), "skipped": {"text_style": "missing_audio"}}
    old = {"text_style" if name == "text_normalization" else name: value for name, value in index.items()}
    (tmp_path / "index.json").write_text(json.dumps(old))
    assert read_index(tmp_path, whole=True) == index


@pytest.mark.parametrize("name", ["columns", "shards", "payload", "skipped", "text_normalization"])
def test_an_index_without_a_part_will_do_for_its_split_alone(tmp_path: Path, name: str) -> None:
    index = whole_index()
    del index[name]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert read_index(tmp_path)["split"] == ""
    with pytest.raises(InputError, match=f"has no '{name}'"):
        read_index(tmp_path, whole=True)
