"""The files of a corpus: folders, patterns, and splits by the names of files and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.common.errors import InputError
from data.corpus.data_files import find_data_files


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(input: Path | str, split: str, root: Path) -> list[str]:
    files, left = find_data_files(input, split, (".parquet",))
    assert left == ""
    return [str(Path(file).relative_to(root)) for file in files]


HUB = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002-0123456789abcdef.parquet")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        ((*HUB, "data/test-00000-of-00001.parquet", "README.md"), "train", HUB),
        ((*HUB, "data/validation-00000-of-00001.parquet"), "dev", ("data/validation-00000-of-00001.parquet",)),
        (("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"), "test", ("test/0000.parquet",)),
        (("x/dev.parquet", "x/train.parquet"), "validation", ("x/dev.parquet",)),
        (("clean/train.100-00000-of-00001.parquet", "clean/train.360-00000-of-00001.parquet"), "train.100",
         ("clean/train.100-00000-of-00001.parquet",)),
        (("clean/train.100-0-of-1.parquet", "clean/test-0-of-1.parquet"), "train", ("clean/train.100-0-of-1.parquet",)),
        (("clean-00000-of-00001.parquet", "other-00000-of-00001.parquet"), "other", ("other-00000-of-00001.parquet",)),
        (("a-00000-of-00002.parquet", "a-00001-of-00002.parquet"), "",
         ("a-00000-of-00002.parquet", "a-00001-of-00002.parquet")),
        ((".cache/train.parquet", "train.parquet", "._train.parquet"), "train", ("train.parquet",)),
    ],
)  # fmt: skip
def test_the_files_of_a_split_are_found_by_name(tmp_path, names, split, expected):
    make(tmp_path, *names)
    assert found(tmp_path, split, tmp_path) == list(expected)


def test_patterns_name_files(tmp_path):
    make(tmp_path, "a/train-0000.parquet", "a/train-0001.parquet", "a/train-0002.parquet", "b/test-0000.parquet")
    assert found(tmp_path / "*/train-000[12].parquet", "", tmp_path) == ["a/train-0001.parquet", "a/train-0002.parquet"]
    assert found(tmp_path / "**/*.parquet", "test", tmp_path) == ["b/test-0000.parquet"]
    assert found(tmp_path / "a/train-{0000..0001}.parquet", "train", tmp_path) == [
        "a/train-0000.parquet",
        "a/train-0001.parquet",
    ]
    assert found(tmp_path / "a/train-0001.parquet", "", tmp_path) == ["a/train-0001.parquet"]


def test_a_missing_shard_of_a_range_is_named(tmp_path):
    make(tmp_path, "s-00.tar", "s-02.tar")
    with pytest.raises(InputError, match=r"no file .*s-01\.tar: check the path"):
        find_data_files(tmp_path / "s-{00..02}.tar", "", (".tar",))


def test_splits_are_not_mixed_by_accident(tmp_path):
    make(tmp_path, "train.parquet", "test.parquet")
    with pytest.raises(InputError, match="has the splits test, train: choose one with split"):
        find_data_files(tmp_path, "", (".parquet",))
    with pytest.raises(InputError, match=r"no split 'dev' in .*: its files are called test, train"):
        find_data_files(tmp_path, "dev", (".parquet",))


def test_a_split_that_no_name_says_is_left_to_the_rows(tmp_path):
    make(tmp_path, "part-0.parquet")
    files, left = find_data_files(tmp_path, "dev", (".parquet",))
    assert len(files) == 1 and left == "dev"


def test_what_is_not_there_is_one_line(tmp_path):
    make(tmp_path, "a.txt")
    for path in (tmp_path, tmp_path / "*.parquet", tmp_path / "none.parquet"):
        with pytest.raises(InputError, match="no file"):
            find_data_files(path, "", (".parquet",))


def test_of_a_saved_dataset_the_listed_files_are_read(tmp_path):
    make(tmp_path, "train/data-00000-of-00001.arrow", "train/cache-0123.arrow", "test/data-00000-of-00001.arrow")
    for split in ("train", "test"):
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
    files, _ = find_data_files(tmp_path, "train", (".arrow",))
    assert files == [str(tmp_path / "train/data-00000-of-00001.arrow")]
    (tmp_path / "train/state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json is not valid JSON"):
        find_data_files(tmp_path, "train", (".arrow",))


def test_files_behind_a_url_are_found():
    import tensorflow as tf

    for name in ("train-0000.parquet", "test-0000.parquet", "._train-0000.parquet", "._test-0000.parquet"):
        tf.io.gfile.makedirs("ram://data_files/x")
        with tf.io.gfile.GFile(f"ram://data_files/x/{name}", "w") as file:
            file.write("x")
    assert find_data_files("ram://data_files/x", "train", (".parquet",))[0] == ["ram://data_files/x/train-0000.parquet"]
    assert find_data_files("ram://data_files/x/te*.parquet", "", (".parquet",))[0] == [
        "ram://data_files/x/test-0000.parquet"
    ]
    # What macOS adds is passed over, as it is in local folders.
    assert find_data_files("ram://data_files/x/*test*", "", (".parquet",))[0] == [
        "ram://data_files/x/test-0000.parquet"
    ]
