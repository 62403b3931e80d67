"""Writes text, JSON and JSON-lines files, local or remote, so that a killed process never leaves half a file."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import storage
from common.json_files import MalformedFileError, parse_object


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` so that readers see either the old or the new content.

    Args:
        path: Path or URL of the file; missing parent folders are created.
        text: Content, written as UTF-8.

    Raises:
        OSError: The folder cannot be written.
    """
    write_parts_atomic(path, [text])


def write_parts_atomic(path: str | os.PathLike[str], parts: Iterable[str]) -> None:
    """Writes a text like `write_text_atomic`, part by part; only behind a URL is it whole in memory."""
    if storage.is_remote(path):
        storage.make_dirs(storage.parent(path))
        temporary_url = f"{os.fspath(path)}.tmp"
        storage.write_bytes(temporary_url, "".join(parts).encode("utf-8"))
        storage.replace(temporary_url, path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is atomic only within a file system. Not by tempfile, whose files only
    # their owner can read.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with storage.named_errors(target), open(temporary, "w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json_atomic(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically; `to_json_value` converts it."""
    text = json.dumps(to_json_value(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def append_jsonl(path: str | os.PathLike[str], *records: Mapping[str, Any]) -> None:
    """Appends each record as a line of JSON; the system has the data when the call returns.

    Args:
        path: File to append to; it and missing parent folders are created.
        records: Objects to append; `to_json_value` converts them.

    Raises:
        OSError: The file cannot be written, perhaps because the disk is full; it is unchanged.
    """
    storage.make_dirs(storage.parent(path) or ".")
    storage.append_bytes(path, "".join(json_line(record) for record in records).encode("utf-8"))


def write_jsonl_atomic(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Writes `records` as lines of JSON; an interruption leaves the old file as it was."""
    write_parts_atomic(path, (json_line(record) for record in records))


def json_line(record: Mapping[str, Any]) -> str:
    """Returns `record` as one line of JSON with its newline."""
    return json.dumps(to_json_value(record), ensure_ascii=False, allow_nan=False) + "\n"


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the objects of a JSON-lines file; ignores a last line that was cut off while written.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line that ends in a newline is not a JSON object.
    """
    return [record for _, record in read_jsonl_lines(path)]


def read_jsonl_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line number and the object of each line that `read_jsonl` reads."""
    lines = storage.read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse_object(line, "it")
        except MalformedFileError as error:
            # A last line without a newline is cut off if it is not valid, and complete if it is.
            if number == len(lines):
                break
            raise ValueError(
                f"{os.fspath(path)}, line {number}: not a JSON object: {error}; repair or remove the line"
            ) from error


def to_json_value(obj: Any) -> Any:
    """Converts `obj` to values that JSON can represent.

    NumPy scalars become numbers; NumPy arrays, tuples and sets become lists; paths become text. NaN and the infinities
    become None, because JSON cannot represent them and strict readers refuse Python's spelling.
    """
    if isinstance(obj, Mapping):
        return {str(key): to_json_value(value) for key, value in obj.items()}
    if isinstance(obj, (set, frozenset)):
        return sorted(to_json_value(value) for value in obj)
    if isinstance(obj, (list, tuple)):
        return [to_json_value(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    # NumPy's scalars and arrays, without importing NumPy. Tested first, because np.float64 is a float.
    if hasattr(obj, "tolist"):
        obj = obj.tolist()
        return to_json_value(obj) if isinstance(obj, list) else _finite_or_none(obj)
    return _finite_or_none(obj)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
