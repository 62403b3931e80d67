"""The index beside TFRecord shards: finding it, reading it, refusing another version, checking shards against it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from common import storage
from common.json_files import MalformedFileError, describe, field, is_kind, optional_field, parse_object
from data.common.errors import InputError
from data.shards.records import PAYLOADS

INDEX_NAME = "index.json"
FORMAT_VERSION = 2  # 2: payload, and a sha256 for every shard
# One list each, in the order of the shards; offset, length and crc32 (zlib's) are the payload's.
COLUMNS = ("utterance_id", "speaker_id", "text", "num_samples", "offset", "length", "crc32")
_FIELDS: dict[str, type] = {
    "sample_rate": int,
    "split": str,
    "text_style": str,
    "payload": str,
    "fingerprint": str,
    "num_utterances": int,
    "skipped": dict,
    "shards": list,
    "columns": dict,
}
_MOST_BYTES = 2**50  # of a shard; products of it must fit 64 bits
_MOST_SAMPLES_PER_BYTE = 8192  # of silent FLAC: at most 65,535 samples in a frame of some 12 bytes


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
    held = read_index(folder).get("split", "") if split else ""
    if split != held:
        raise InputError(f"{folder} holds the split {held!r}, not {split!r}: check input and split")
    return os.fspath(folder)


def read_index(folder: str | os.PathLike[str], *, whole: bool = False) -> dict[str, Any]:
    """Reads FOLDER/index.json and checks what it holds, so that no reader need doubt a type, a length or an offset.

    Args:
        folder: of the shards.
        whole: whether an index that lacks a part is refused, too.

    Raises:
        InputError: it is no index, or of another format version.
    """
    path = storage.join(folder, INDEX_NAME)
    try:
        index = parse_object(storage.read_bytes(path), path)
        version = field(index, "format_version", int, path)
        if version == FORMAT_VERSION:
            _check_index(index, path, whole=whole)
    except MalformedFileError as error:
        reason = str(error).removeprefix(path).lstrip(" :")
        raise InputError(
            f"{path} is no index of shards ({reason}): delete it and run python -m data.prepare again"
        ) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, wanted {FORMAT_VERSION}: delete its folder and "
            "run python -m data.prepare again"
        )
    return index


def check_columns(columns: dict[str, Any], num_bytes: Iterable[tuple[int, int]], where: str) -> int:
    """Checks the columns of an index or of a shard's note.

    Args:
        columns: `COLUMNS`.
        num_bytes: (utterances, bytes) of each shard.
        where: stands before a fault.

    Returns:
        The number of utterances.

    Raises:
        MalformedFileError: a column is absent, holds values of another type, or has another length than the others, or
            a record lies outside its shard.
    """
    for name in COLUMNS:
        kind = str if name in ("utterance_id", "speaker_id", "text") else int
        column = field(columns, name, list, where)
        # By types first: millions of values are checked at each start.
        if set(map(type, column)) - {kind} or (kind is int and column and not is_kind(max(column, key=abs), int)):
            wrong = next(value for value in column if not is_kind(value, kind))
            raise MalformedFileError(f"{where}: {name!r} holds {describe(wrong)}")
    lengths = {len(columns[name]) for name in COLUMNS}
    counts, sizes = np.array(list(num_bytes), dtype=np.int64).reshape(-1, 2).T
    if lengths != {int(counts.sum())}:
        raise MalformedFileError(f"{where}: the columns have {sorted(lengths)} values for {counts.sum()} utterances")
    ends = np.repeat(sizes, counts)
    if len(set(columns["utterance_id"])) != len(ends):
        raise MalformedFileError(f"{where}: an utterance id occurs twice")
    samples, offset, length, crc32 = (
        np.array(columns[name], dtype=np.int64) for name in ("num_samples", "offset", "length", "crc32")
    )
    # A record of FLAC can hold very long silence in few bytes, but not more than this.
    is_wrong = (offset < 0) | (length < 1) | (offset > ends - length) | (crc32 < 0) | (crc32 >= 2**32)
    is_wrong |= (samples < 1) | (samples > _MOST_SAMPLES_PER_BYTE * length)
    if is_wrong.any():
        name = columns["utterance_id"][int(np.argmax(is_wrong))]
        raise MalformedFileError(f"{where}: the record of {name!r} cannot be where it says, or as long")
    return len(ends)


def _check_index(index: dict[str, Any], path: str, *, whole: bool) -> None:
    for name, kind in _FIELDS.items():
        if whole or name in index:
            field(index, name, kind, path)
    for shard in index.get("shards", []):
        if not isinstance(shard, dict):
            raise MalformedFileError(f"{path}: a shard is {describe(shard)}, not a JSON object")
        name = field(shard, "name", str, path)
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise MalformedFileError(f"{path}: the shard {describe(name)} is no name of a file")
        field(shard, "sha256", str, path)
        counts = [field(shard, "num_bytes", int, path)]
        counts += [optional_field(shard, key, int, path, 0) for key in ("num_utterances", "num_encoded")]
        for key in ("num_utterances", "num_encoded") if whole else ():
            field(shard, key, int, path)
        if min(counts) < 0 or max(counts[1:]) > counts[0] or counts[0] > _MOST_BYTES:
            raise MalformedFileError(f"{path}: the shard {describe(name)} cannot have {counts[1]} utterances")
    if whole and index["payload"] not in PAYLOADS:
        raise MalformedFileError(f"{path}: 'payload' is {describe(index['payload'])}, not {' or '.join(PAYLOADS)}")
    if whole:
        sizes = [(shard["num_utterances"], shard["num_bytes"]) for shard in index["shards"]]
        count = check_columns(index["columns"], sizes, path)
        if count != index["num_utterances"]:
            raise MalformedFileError(f"{path}: 'num_utterances' is {index['num_utterances']}, and {count} are listed")
        if not all(isinstance(code, str) for code in index["skipped"].values()):
            raise MalformedFileError(f"{path}: 'skipped' is not utterance id -> code")


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
    shards = read_index(found).get("shards", [])
    total = sum(shard["num_bytes"] for shard in shards)
    advice = "run python -m data.prepare again"
    problems = {}
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,  # hashing releases the GIL
        tqdm(desc="checksums", total=total, unit="B", unit_scale=True, disable=None if progress else True) as bar,
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
