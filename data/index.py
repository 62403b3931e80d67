"""The index beside TFRecord shards: finding it, reading it, refusing another version, checking shards against it."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from common import storage
from data.errors import InputError

INDEX_NAME = "index.json"
FORMAT_VERSION = 2  # 2: payload, and a sha256 for every shard
# One list each, in the order of the shards; offset, length and crc32 (zlib's) are the payload's.
COLUMNS = ("utterance_id", "speaker_id", "text", "num_samples", "offset", "length", "crc32")


def find_index(folder: str | os.PathLike[str], split: str) -> str:
    """The folder that holds the index of a split.

    Args:
        folder: folder of the shards, or the folder above.
        split: FOLDER/SPLIT where that has an index, else FOLDER, which must then hold that split;
            "" takes what FOLDER holds.

    Raises:
        InputError: no index, or that of another split.
    """
    if split and storage.exists(storage.join(folder, split, INDEX_NAME)):
        return storage.join(folder, split)
    if not storage.exists(storage.join(folder, INDEX_NAME)):
        where = storage.join(folder, split, INDEX_NAME)
        raise InputError(f"no {where}: make it with python -m data.prepare")
    held = read_index(folder)["split"] if split else ""
    if split != held:
        raise InputError(f"{folder} holds the split {held!r}, not {split!r}: check input and split")
    return os.fspath(folder)


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads FOLDER/index.json.

    Raises:
        InputError: it is no index, or of another format version.
    """
    path = storage.join(folder, INDEX_NAME)
    try:
        index = json.loads(storage.read_bytes(path))
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
    found = find_index(folder, split)
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
        digests = pool.map(lambda shard: _digest_or_none(storage.join(found, shard["name"])), shards)
        for shard, digest in zip(shards, digests, strict=True):
            path = storage.join(found, shard["name"])
            bar.update(shard["num_bytes"])
            if digest is None:
                problems[shard["name"]] = f"{path} is missing or cannot be read: {advice}"
            elif digest != shard["sha256"]:
                problems[shard["name"]] = f"{path} is not what was written, its checksum is off: {advice}"
    return problems


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with storage.open_binary(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_or_none(path: str) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def has_size(path: str | os.PathLike[str], num_bytes: int) -> bool:
    """Whether a file is there at just this size."""
    try:
        return storage.is_file(path) and storage.state(path).num_bytes == num_bytes
    except FileNotFoundError:
        return False
