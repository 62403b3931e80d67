"""The index beside TFRecord shards: finding it, reading it, refusing another version, checking shards against it."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import InputError

INDEX_NAME = "index.json"
FORMAT_VERSION = 2  # 2: payload, and a sha256 for every shard
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


def verify_shards(folder: str | os.PathLike[str], *, split: str = "", progress: bool = True) -> dict[str, str]:
    """Compares every shard with the checksum in the index; reads all bytes, some 1.5 GB/s a core.

    Args:
        folder: as `find_index`.
        split: as `find_index`.
        progress: show a bar, if stderr is a terminal.

    Returns:
        Name of each shard that is not as it was written -> one line about it; empty where all is well.

    Raises:
        InputError: no index, or one that cannot be read.
    """
    found = find_index(Path(folder), split)
    shards = read_index(found)["shards"]
    total = sum(shard["num_bytes"] for shard in shards)
    advice = "run python -m data.prepare again"
    problems = {}
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,  # hashing releases the GIL
        tqdm(
            desc="checksums", total=total, unit="B", unit_scale=True, disable=None if progress else True
        ) as bar,
    ):
        digests = pool.map(lambda shard: _digest_or_none(found / shard["name"]), shards)
        for shard, digest in zip(shards, digests, strict=True):
            path = found / shard["name"]
            bar.update(shard["num_bytes"])
            if digest is None:
                problems[shard["name"]] = f"{path} is missing or cannot be read: {advice}"
            elif digest != shard["sha256"]:
                problems[shard["name"]] = f"{path} is not what was written, its checksum is off: {advice}"
    return problems


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_or_none(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def has_size(path: Path, num_bytes: int) -> bool:
    """Whether a file is there at just this size."""
    return path.is_file() and path.stat().st_size == num_bytes
