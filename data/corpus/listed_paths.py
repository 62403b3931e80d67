"""Finds the folder from which the relative paths of a list count."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from common import storage

_NUM_TRIED = 10


def resolve_paths(paths: Iterable[str], folder: str) -> list[str]:
    """Returns the paths of a list whose relative paths count from the folder of a recipe, which is not named.

    The folder of the list is tried first, then each folder above it, then the current one. One folder serves all paths,
    the first from which one of the first ten relative paths leads to a file; the folder of the list if none does.

    Args:
        paths: Paths and URLs as listed.
        folder: Folder of the list.
    """
    paths = list(paths)
    relative = [path for path in dict.fromkeys(paths) if not storage.is_remote(path) and not os.path.isabs(path)]
    tried = list(islice(relative, _NUM_TRIED))
    base = next((base for base in _bases(folder) if any(_is_file(base, path) for path in tried)), folder)
    return [storage.join(base, path) for path in paths]


def _bases(folder: str) -> Iterable[str]:
    yield folder
    if not storage.is_remote(folder):
        yield from map(str, Path(os.path.abspath(folder)).parents)
        yield ""
        return
    while (above := storage.parent(folder)) != folder:
        yield above
        folder = above


def _is_file(base: str, path: str) -> bool:
    try:
        return storage.is_file(storage.join(base, path))
    except (OSError, ValueError):
        return False
