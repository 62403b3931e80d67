"""Manages the cache of fetched and converted weights: its place, atomic folders and errors of its disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from common.readable import describe_error

CACHE_VARIABLE = "EARSHOT_CACHE"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EROFS, errno.EPERM)


def cache_folder() -> Path:
    """Returns the folder for archives and converted weights: $EARSHOT_CACHE, or earshot in the user's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "earshot")


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yields a temporary folder inside `parent`, which is made if absent, and removes what is left of it."""
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def keep(made: Path, target: Path) -> Path:
    """Renames a finished folder to its final name; if another process was faster, that one's folder is kept."""
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def inner_folder(folder: Path) -> Path:
    """Returns the only folder inside a folder, as most archives have one, or else the folder itself."""
    children = list(folder.iterdir()) if folder.is_dir() else []
    return children[0] if len(children) == 1 and children[0].is_dir() else folder


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """Silences the log lines and warnings of a library, whose errors are reported in one line; progress bars stay.

    Args:
        library: Name of its logger. Import the library first, because many set the level of their logger on import.
    """
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def storage_error(name: str, error: OSError) -> OSError:
    """Returns an error of one line for a disk error in the cache.

    Args:
        name: Weights that were to be stored.
        error: Error of the disk.
    """
    elsewhere = f"move the cache ({CACHE_VARIABLE}, HF_HOME, KAGGLEHUB_CACHE)"
    # Without errno, which OSError would print before the name.
    if error.errno in _FULL:
        return OSError(f"{name}: no room on the disk of {error.filename or cache_folder()}; free some, or {elsewhere}")
    if error.errno in _CLOSED:
        return OSError(f"{name}: cannot write to {error.filename}; {elsewhere}")
    return OSError(f"{name}: {describe_error(error, 200)}")


def is_full_or_closed(error: Exception) -> TypeGuard[OSError]:
    """Returns whether an error means that the disk is full or cannot be written."""
    return isinstance(error, OSError) and error.errno in (*_FULL, *_CLOSED)
