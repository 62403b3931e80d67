"""Finds, reads and checks the index beside TFRecord shards, and checks the shards against it."""

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
from common.renamed import FIELDS
from data.common.errors import InputError
from data.shards.records import PAYLOADS

INDEX_NAME = "index.json"
FORMAT_VERSION = 2
# Lists of the index, in the order of the shards. offset, length and crc32 (of zlib) are those of the record.
COLUMNS = ("utterance_id", "speaker_id", "text", "num_samples", "offset", "length", "crc32")
_FIELDS: dict[str, type] = {
    "sample_rate": int,
    "split": str,
    "text_normalization": str,
    "payload": str,
    "fingerprint": str,
    "num_utterances": int,
    "skipped": dict,
    "shards": list,
    "columns": dict,
}
_MOST_BYTES = 2**50  # of a shard; products of it must fit into 64 bits
_MOST_SAMPLES_PER_BYTE = 8192  # of silent FLAC, which has at most 65,535 samples in a frame of about 12 bytes


def find_index(folder: str | os.PathLike[str], split: str) -> str:
    """Returns the folder that holds the index of a split.

    Args:
        folder: Folder of the shards, or the folder above it.
        split: Name of the split, found in FOLDER/SPLIT or FOLDER; "" = the one that FOLDER holds.

    Raises:
        InputError: If there is no index, or it belongs to another split.
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
    """Reads FOLDER/index.json and checks all types, lengths and offsets.

    Args:
        folder: Folder of the shards.
        whole: Whether to refuse an index that lacks a part.

    Raises:
        InputError: If it is not an index, or has another format version.
    """
    path = storage.join(folder, INDEX_NAME)
    try:
        # Not nested: an utterance that was skipped may be called like an old field.
        index = {FIELDS.get(name, name): value for name, value in parse_object(storage.read_bytes(path), path).items()}
        version = field(index, "format_version", int, path)
        if version == FORMAT_VERSION:
            _check_index(index, path, whole=whole)
    except MalformedFileError as error:
        reason = str(error).removeprefix(path).lstrip(" :")
        raise InputError(
            f"{path} is not an index of shards ({reason}): delete it and run python -m data.prepare again"
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
        columns: Name -> values, for all names in `COLUMNS`.
        num_bytes: (utterances, bytes) of each shard.
        where: Name of the file in messages.

    Returns:
        The number of utterances.

    Raises:
        MalformedFileError: If a column is absent, holds values of another type or has another length than the others,
            or a record is outside its shard.
    """
    for name in COLUMNS:
        _check_column(columns, name, where)
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
    is_wrong = (offset < 0) | (length < 1) | (offset > ends - length) | (crc32 < 0) | (crc32 >= 2**32)
    is_wrong |= (samples < 1) | (samples > _MOST_SAMPLES_PER_BYTE * length)
    if is_wrong.any():
        name = columns["utterance_id"][int(np.argmax(is_wrong))]
        raise MalformedFileError(f"{where}: the record of {name!r} has an impossible offset or length")
    return len(ends)


def _check_column(columns: dict[str, Any], name: str, where: str) -> None:
    kind = str if name in ("utterance_id", "speaker_id", "text") else int
    column = field(columns, name, list, where)
    # Compare types first, because every start checks millions of values.
    if set(map(type, column)) - {kind} or (kind is int and column and not is_kind(max(column, key=abs), int)):
        wrong = next(value for value in column if not is_kind(value, kind))
        raise MalformedFileError(f"{where}: {name!r} holds {describe(wrong)}")


def _check_index(index: dict[str, Any], path: str, *, whole: bool) -> None:
    for name, kind in _FIELDS.items():
        if whole or name in index:
            field(index, name, kind, path)
    for shard in index.get("shards", []):
        _check_shard(shard, path, whole=whole)
    if whole:
        _check_content(index, path)


def _check_content(index: dict[str, Any], path: str) -> None:
    if index["payload"] not in PAYLOADS:
        raise MalformedFileError(f"{path}: 'payload' is {describe(index['payload'])}, not {' or '.join(PAYLOADS)}")
    sizes = [(shard["num_utterances"], shard["num_bytes"]) for shard in index["shards"]]
    count = check_columns(index["columns"], sizes, path)
    if count != index["num_utterances"]:
        raise MalformedFileError(f"{path}: 'num_utterances' is {index['num_utterances']}, but {count} are listed")
    _check_fields(index, path, count)
    if not all(isinstance(code, str) for code in index["skipped"].values()):
        raise MalformedFileError(f"{path}: 'skipped' is not utterance id -> code")


def _check_fields(index: dict[str, Any], path: str, count: int) -> None:
    """Checks the further fields of the manifest, which an index may have."""
    for name, one in optional_field(index, "fields", dict, path, {}).items():
        where = f"{path}: fields: {name}"
        if not isinstance(one, dict):
            raise MalformedFileError(f"{where} is {describe(one)}, not a JSON object")
        values, numbers = field(one, "values", list, where), field(one, "numbers", list, where)
        are_right = all(is_kind(text, str) for text in values) and len(numbers) == count
        if not are_right or not all(is_kind(number, int) and 0 <= number < len(values) for number in numbers):
            raise MalformedFileError(f"{where} has not one value for each of {count} utterances")


def _check_shard(shard: Any, path: str, *, whole: bool) -> None:
    if not isinstance(shard, dict):
        raise MalformedFileError(f"{path}: a shard is {describe(shard)}, not a JSON object")
    name = field(shard, "name", str, path)
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise MalformedFileError(f"{path}: the shard {describe(name)} is not a file name")
    field(shard, "sha256", str, path)
    counts = [field(shard, "num_bytes", int, path)]
    counts += [optional_field(shard, key, int, path, 0) for key in ("num_utterances", "num_encoded")]
    for key in ("num_utterances", "num_encoded") if whole else ():
        field(shard, key, int, path)
    if min(counts) < 0 or max(counts[1:]) > counts[0] or counts[0] > _MOST_BYTES:
        raise MalformedFileError(f"{path}: the shard {describe(name)} cannot have {counts[1]} utterances")


def verify_shards(folder: str | os.PathLike[str], *, split: str = "", progress: bool = True) -> dict[str, str]:
    """Compares every shard with its checksum in the index, reading about 1.5 GB/s per core.

    Args:
        folder: Folder of the shards, or the folder above it.
        split: Name of the split; "" = the one that `folder` holds.
        progress: Whether to show a progress bar if stderr is a terminal.

    Returns:
        Name of each damaged or missing shard -> one line about it.

    Raises:
        InputError: If there is no index, or it cannot be read.
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
                problems[shard["name"]] = f"{path} is damaged, its checksum is wrong: {advice}"
    return problems


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file or URL in hexadecimal."""
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
    """Returns whether a file exists and has exactly this size."""
    try:
        return storage.is_file(path) and storage.state(path).num_bytes == num_bytes
    except FileNotFoundError:
        return False
