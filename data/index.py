"""The index beside TFRecord shards: finding it, reading it, refusing another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.errors import InputError

INDEX_NAME = "index.json"
FORMAT_VERSION = 1
# One list each, in the order of the shards; offset, length and crc32 (zlib's) are the payload's.
COLUMNS = ("utterance_id", "speaker_id", "text", "num_samples", "offset", "length", "crc32")


def find_index(folder: Path, split: str) -> Path:
    """The folder that holds the index of a split.

    Args:
        folder: folder of the shards, or the folder above.
        split: FOLDER/SPLIT where that has an index, else FOLDER, which must then hold that split;
            "" takes what FOLDER holds.

    Raises:
        InputError: no index, or that of another split.
    """
    if split and (folder / split / INDEX_NAME).exists():
        return folder / split
    if not (folder / INDEX_NAME).exists():
        raise InputError(f"no {folder / split / INDEX_NAME}: make it with python -m data.prepare")
    held = read_index(folder)["split"] if split else ""
    if split != held:
        raise InputError(f"{folder} holds the split {held!r}, not {split!r}: check input and split")
    return folder


def read_index(folder: Path) -> dict[str, Any]:
    """Reads FOLDER/index.json.

    Raises:
        InputError: it is no index, or of another format version.
    """
    path = folder / INDEX_NAME
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        version = index["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no index of shards: delete it and run python -m data.prepare again"
        ) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, wanted {FORMAT_VERSION}: delete its folder and "
            "run python -m data.prepare again"
        )
    return index


def has_size(path: Path, num_bytes: int) -> bool:
    """Whether a file is there at just this size."""
    return path.is_file() and path.stat().st_size == num_bytes
