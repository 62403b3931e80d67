"""Reads JSON files from outside, and names the file and the place of every fault."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

MAX_BYTES = 256 * 2**20  # of one document; the index of 10,000 hours has about 100 MB
_MAX_DEPTH = 100  # of arrays and objects, because recursive readers need a few stack frames for each
_SHOWN_CHARACTERS = 60

Kind = TypeVar("Kind")


class MalformedFileError(ValueError):
    """A file has unexpected content; the message is one line with the file and the place."""


def parse_json(content: str | bytes, where: str) -> Any:
    """Parses one JSON document.

    Args:
        content: Text, or UTF-8 bytes with or without a byte order mark.
        where: Beginning of messages: a path, or a path and a line.

    Returns:
        The value. NaN and infinities, which Python writes although JSON lacks them, are floats, which `field` refuses.

    Raises:
        MalformedFileError: If `content` is not UTF-8, not JSON, nested too deeply, has a number with thousands of
            digits, or half of a surrogate pair, which cannot be written to a file again.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise MalformedFileError(f"{where} is not UTF-8 text (byte {error.start}): convert it to UTF-8") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.rstrip() else f"column {error.colno}"
        raise MalformedFileError(f"{where} is not valid JSON ({error.msg}, {place})") from error
    except RecursionError as error:
        raise MalformedFileError(f"{where} is not usable JSON (nested too deeply)") from error
    except ValueError as error:  # Python refuses to convert more than 4,300 digits
        raise MalformedFileError(f"{where} is not usable JSON (a number has too many digits)") from error
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        _refuse_deep(value, where)
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(value, where)
    return value


def parse_object(content: str | bytes, where: str) -> dict[str, Any]:
    """Parses one JSON object with `parse_json`, and refuses other values."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        raise MalformedFileError(f"{where} is {describe(value)}, not a JSON object")
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a local file of one JSON document.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        MalformedFileError: If `parse_json` refuses it, or it has more than `MAX_BYTES`.
    """
    if (size := os.path.getsize(path)) > MAX_BYTES:
        raise MalformedFileError(f"{os.fspath(path)} has {size} bytes; at most {MAX_BYTES} are read")
    return parse_json(Path(path).read_bytes(), os.fspath(path))


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a local file of one JSON object with `read_json`, and refuses other values."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise MalformedFileError(f"{os.fspath(path)} is {describe(value)}, not a JSON object")
    return value


def field(record: Mapping[str, Any], key: str, kind: type[Kind], where: str) -> Kind:
    """Returns `record[key]` after checking its type.

    Args:
        record: Parsed JSON object.
        key: Name of the value.
        kind: int, float (which accepts whole numbers), str, bool, list or dict. Numbers must be finite, and an int at
            most 2**63 - 1.
        where: Beginning of messages.

    Raises:
        MalformedFileError: If the key is absent, or its value has another type.
    """
    if key not in record:
        raise MalformedFileError(f"{where} has no {key!r}")
    value = record[key]
    if not is_kind(value, kind):
        raise MalformedFileError(f"{where}: {key!r} is {describe(value)}, not {_NAMES[kind]}")
    return float(value) if kind is float else value  # type: ignore[return-value]


def optional_field(record: Mapping[str, Any], key: str, kind: type[Kind], where: str, default: Kind) -> Kind:
    """Returns `record[key]` like `field`, or `default` if the key is absent."""
    return field(record, key, kind, where) if key in record else default


def is_kind(value: Any, kind: type) -> bool:
    """Returns whether a JSON value has the type `kind`, as `field` defines it."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _fits_float(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def describe(value: Any) -> str:
    """Returns a JSON value for a message, short and on one line."""
    if isinstance(value, dict):
        return "a JSON object"
    if isinstance(value, list):
        return "a JSON array"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    list: "a JSON array",
    dict: "a JSON object",
}


def _fits_float(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _refuse_deep(value: Any, where: str) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise MalformedFileError(f"{where} is not usable JSON (nested too deeply)")


def _refuse_lone_surrogates(value: Any, where: str) -> None:
    for string in _strings(value):
        if any("\ud800" <= character <= "\udfff" for character in string):
            raise MalformedFileError(f"{where} is not usable JSON (half of a surrogate pair in {ascii(string)[:60]})")


def _strings(value: Any) -> Iterator[str]:
    # A stack instead of recursion, because the value may be as deep as the parser allows.
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
