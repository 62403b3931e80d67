"""Recognizes paths that stand for several files: wildcards, ranges in braces, datasets of the Hugging Face Hub."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_PATHS = 100_000
HUB_DATASETS = "hf://datasets/"


def is_spread(path: str | os.PathLike[str]) -> bool:
    """Returns whether only the reader of a corpus can tell which files a path stands for."""
    return os.fspath(path).startswith(HUB_DATASETS) or is_pattern(path)


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path has wildcards or braces and is not the name of a file or folder."""
    path = os.fspath(path)
    has_marks = any(mark in path for mark in "*?[") or any(map(_is_choice, _BRACES.findall(path)))
    return has_marks and not os.path.exists(path)


def expand_braces(path: str) -> list[str]:
    """Returns the paths that {000..012} and {a,b} stand for; the width of a number is that of the first one.

    Raises:
        ValueError: If they are more than 100,000.
    """
    parts: list[list[str]] = []
    end = 0
    for found in _BRACES.finditer(path):
        if _is_choice(found.group(1)):
            parts += [[path[end : found.start()]], list(_choices(found.group(1)))]
            end = found.end()
    parts.append([path[end:]])
    if math.prod(map(len, parts)) > _MOST_PATHS:
        raise ValueError(f"{path} stands for more than {_MOST_PATHS} files; name fewer")
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def _is_choice(content: str) -> bool:
    """Returns whether the text between braces stands for several texts."""
    return "," in content or _RANGE.fullmatch(content) is not None


def _choices(content: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(content)
    if numbers is None:
        yield from content.split(",")
        return
    first, last = numbers.groups()
    for number in itertools.islice(range(int(first), int(last) + 1), _MOST_PATHS + 1):
        yield f"{number:0{len(first)}d}"
