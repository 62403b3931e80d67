"""Finds the files of a corpus of many files: a file, a folder, a pattern, or a dataset of the Hugging Face Hub."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common import storage
from common.json_files import MalformedFileError, field, read_object
from common.near_files import describe_near
from common.spread_paths import expand_braces, is_pattern
from data.common.errors import InputError
from data.corpus.hub_datasets import fetch_dataset, is_hub_dataset

# The words in names of files and folders by which a split is known, as the `datasets` library knows them.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# NAME-00000-of-00004, with a digest or not, NAME_0003 and NAME.000012.
_NUMBERED = re.compile(r"(.+?)[-_.]\d+(?:-of-\d+)?(?:-[0-9a-f]{8,})?")
_MOST_SHOWN = 10
_MOST_LEVELS = 5  # of folders


def find_data_files(input: str | os.PathLike[str], split: str, suffixes: Sequence[str]) -> tuple[list[str], str]:
    """Finds the files of a split.

    Args:
        input: File, folder, pattern (*, ?, [...], {000..012}), or hf://datasets/OWNER/NAME.
        split: Split, which the names of the files or of their folders say; "" = all files.
        suffixes: Suffixes of the files in a folder.

    Returns:
        The files, sorted, and the split that is still to be selected among their rows, because no name says a split.

    Raises:
        InputError: If there is no file, none belongs to the split, or `split` is "" and the files belong to several.
    """
    source = os.fspath(input)
    if is_hub_dataset(source):
        return fetch_dataset(source, suffixes, lambda names: _choose(source, names, names, split)[0]), ""
    files, root = _list_files(source, suffixes)
    if not files:
        wanted = f" with {' or '.join(f'*{suffix}' for suffix in suffixes)}"
        raise InputError(
            f"no file{wanted if storage.is_dir(source) else ''} in {source}: check the path{describe_near(source)}"
        )
    names = [file[len(root) :].lstrip("/") for file in files]
    return _choose(source, files, names, split)


def _list_files(source: str, suffixes: Sequence[str]) -> tuple[list[str], str]:
    """Returns the files of a file, a folder or a pattern, sorted, and the folder that they lie in."""
    if is_pattern(source):
        try:
            files = sorted({file for pattern in expand_braces(source) for file in _match(pattern)})
        except ValueError as error:
            raise InputError(str(error)) from error
        return files, os.path.dirname(os.path.commonprefix(files))
    if storage.is_dir(source):
        return _list_folder(source, suffixes), source
    return [source] if storage.is_file(source) else [], os.path.dirname(source)


def _match(pattern: str) -> list[str]:
    if storage.is_remote(pattern):
        folder, _, name = pattern.rpartition("/")
        return [path for path in storage.glob(folder, name) if not _is_hidden(path)]
    # A path without a wildcard is kept, because a missing shard must be told.
    found = sorted(glob.glob(pattern, recursive=True))
    if not found and not glob.has_magic(pattern):
        raise InputError(f"no file {pattern}: check the path{describe_near(pattern)}")
    return [path for path in found if os.path.isfile(path)]


def _is_hidden(path: str) -> bool:
    """Returns whether a file is hidden, such as ._NAME of macOS, which the patterns of local folders pass over."""
    return path.rpartition("/")[2].startswith(".")


def _list_folder(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Returns the visible files of a folder and its folders with one of the suffixes, sorted."""
    if storage.is_remote(folder):
        patterns = ["*/" * depth + f"*{suffix}" for suffix in suffixes for depth in range(_MOST_LEVELS)]
        found = (path for pattern in patterns for path in storage.glob(folder, pattern))
        return sorted(path for path in found if not _is_hidden(path))
    return sorted(
        storage.join(parent, name)
        for parent, names in _walk(folder)
        for name in names
        if name.endswith(tuple(suffixes)) and not _is_hidden(name)
    )


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each visible folder with the names of its files; of one that `save_to_disk` wrote, those that it lists."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield parent, _saved_files(storage.join(parent, "state.json")) if "state.json" in names else names


def _saved_files(path: str) -> list[str]:
    try:
        listed = field(read_object(path), "_data_files", list, path)
        return [field(item, "filename", str, path) for item in listed if isinstance(item, dict)]
    except MalformedFileError as error:
        raise InputError(f"{error}: save the dataset again") from error


class _NamedFile(NamedTuple):
    """A file, what may be the name of its split, and the split that a word of it stands for, "" if none does."""

    path: str
    splits: list[str]
    word: str

    @classmethod
    def of(cls, path: str, name: str) -> _NamedFile:
        splits = _split_names(name)
        return cls(path, splits, next(filter(None, map(_word_of, splits)), ""))


def _choose(source: str, files: Sequence[str], names: Sequence[str], split: str) -> tuple[list[str], str]:
    """Returns the files of a split and the split that is left, see `find_data_files`."""
    found = [_NamedFile.of(file, name) for file, name in zip(files, names, strict=True)]
    if not split:
        several = sorted({one.word for one in found} - {""})
        if len(several) > 1:
            raise InputError(f"{source} has the splits {', '.join(several)}: choose one with split")
        return list(files), ""
    word = _word_of(split, alone=True)
    exact = [one.path for one in found if split in one.splits]
    if chosen := exact or [one.path for one in found if word and one.word == word]:
        return chosen, ""
    if called := sorted({one.splits[0] for one in found if one.word}):
        raise InputError(f"no split {split!r} in {source}: its files are called {', '.join(called[:_MOST_SHOWN])}")
    return list(files), split


def _split_names(name: str) -> list[str]:
    """Returns what may be the name of a file's split: its own name without its number, then its folders."""
    *folders, base = name.split("/")
    base = os.path.splitext(base)[0]
    numbered = _NUMBERED.fullmatch(base)
    own = [numbered.group(1)] if numbered else [base] if not base.isdigit() else []
    return [*own, *reversed(folders)] or [""]


def _word_of(name: str, *, alone: bool = False) -> str:
    """Returns the split that a word of a name stands for; "" if there is none or, with `alone`, another word too."""
    parts = [part for part in re.split(r"[^a-z]+", name.lower()) if part]
    if alone and len(parts) != 1:
        return ""
    return next((split for part in parts for split, words in _WORDS.items() if part in words), "")
