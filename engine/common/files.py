"""Text, JSON and JSON-lines files, local or behind a URL, that a killed process never leaves half-written."""

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
    """Writes `text` to `path` so that a reader sees the old content or the new one.

    Args:
        path: File to write, or its URL; missing parent folders are made.
        text: Content, written as UTF-8.

    Raises:
        OSError: The folder cannot be written.
    """
    if storage.is_remote(path):
        storage.make_dirs(storage.parent(path))
        temporary_url = f"{os.fspath(path)}.tmp"
        storage.write_bytes(temporary_url, text.encode("utf-8"))
        storage.replace(temporary_url, path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, because os.replace is atomic only within one file system. Not tempfile: its
    # files are readable by their owner alone, and a workdir is often read by others.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with storage.named_errors(target), open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json_atomic(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically; see `to_json_value` for what is converted."""
    text = json.dumps(to_json_value(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def append_jsonl(path: str | os.PathLike[str], *records: Mapping[str, Any]) -> None:
    """Appends each record as one line of JSON, handed to the system before the call returns.

    Args:
        path: File to append to; it and its missing parent folders are made.
        records: Objects; see `to_json_value` for what is converted.

    Raises:
        OSError: The file cannot be written, for want of room perhaps; it is as it was.
    """
    storage.make_dirs(storage.parent(path) or ".")
    storage.append_bytes(path, "".join(json_line(record) for record in records).encode("utf-8"))


def write_jsonl_atomic(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Writes `records` as lines of JSON; an interruption leaves the old file as it was."""
    write_text_atomic(path, "".join(json_line(record) for record in records))


def json_line(record: Mapping[str, Any]) -> str:
    """Returns `record` as one line of JSON, its newline included."""
    return json.dumps(to_json_value(record), ensure_ascii=False, allow_nan=False) + "\n"


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the objects of a JSON-lines file; a last line cut off while written is left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line that ends in a newline is not a JSON object.
    """
    return [record for _, record in read_jsonl_lines(path)]


def read_jsonl_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and object, as `read_jsonl`."""
    lines = storage.read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse_object(line, "it")
        except MalformedFileError as error:
            # Cut off while written. Written whole by another tool, a last line may lack its newline, and counts.
            if number == len(lines):
                break
            raise ValueError(
                f"{os.fspath(path)}, line {number}: not a JSON object: {error}; repair or remove the line"
            ) from error


def to_json_value(obj: Any) -> Any:
    """Returns `obj` as JSON can hold it.

    NumPy scalars become numbers, NumPy arrays, tuples and sets lists, paths text; NaN and the
    infinities become None, because JSON has no word for them and strict readers refuse Python's.
    """
    if isinstance(obj, Mapping):
        return {str(key): to_json_value(value) for key, value in obj.items()}
    if isinstance(obj, (set, frozenset)):
        return sorted(to_json_value(value) for value in obj)
    if isinstance(obj, (list, tuple)):
        return [to_json_value(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    # NumPy's scalars and arrays, without importing NumPy. First, because np.float64 is a float.
    if hasattr(obj, "tolist"):
        obj = obj.tolist()
        return to_json_value(obj) if isinstance(obj, list) else _finite_or_none(obj)
    return _finite_or_none(obj)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
