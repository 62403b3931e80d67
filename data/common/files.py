"""Writes files atomically, names them relative to a folder, locks folders, and limits how many stay open."""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import storage
from data.common.errors import InputError


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text as `write_bytes_atomic` does."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes bytes to a temporary file beside `path` and renames it.

    Args:
        path: File or URL; its folder is made if absent.
        content: Content of the file.
    """
    if storage.is_remote(path):
        storage.make_dirs(os.path.dirname(os.fspath(path)))
        storage.write_bytes(f"{os.fspath(path)}.tmp", content)
        storage.replace(f"{os.fspath(path)}.tmp", path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class Lock:
    """A lock of a folder that `only_writer` holds."""

    def __init__(self, handle: int | None):
        self._handle = handle

    def share(self) -> None:
        """Lets worker processes join with `join_writer`; the lock lasts until the last of them ends."""
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def only_writer(folder: str | os.PathLike[str], *, wait_secs: float = 0.0) -> Iterator[Lock]:
    """Holds the lock of a folder; the system releases it when the process ends in any way.

    Args:
        folder: Existing folder. A URL has no lock.
        wait_secs: Time to wait for another holder, such as the workers of a process that was just killed.

    Raises:
        InputError: If another process, or another caller in this one, holds the lock.
    """
    if storage.is_remote(folder):
        yield Lock(None)
        return
    handle = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + wait_secs
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise InputError(f"another process is writing to {folder}: wait until it is done") from error
                time.sleep(0.05)
        yield Lock(handle)
    finally:
        os.close(handle)


def join_writer(folder: str | os.PathLike[str]) -> None:
    """Holds a shared lock from a worker process until that process ends."""
    if not storage.is_remote(folder):
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)


def most_open(most: int, divisor: int) -> int:
    """Returns how many files a cache may keep open.

    Args:
        most: Upper bound.
        divisor: The cache takes one in so many of the files that the process may open.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else min(most, max(1, limit // divisor))


def relative_path(path: str, folder: str) -> str:
    """Returns a path relative to `folder`, or the full path if they are on different file systems.

    Links are resolved in both folders: from a folder that is a link, ".." leads to the parent of its target.
    """
    if storage.is_remote(path) and path.startswith(f"{folder}/"):
        return path[len(folder) + 1 :]
    if storage.is_remote(path):
        return path
    if storage.is_remote(folder):
        return os.path.abspath(path)
    parent, name = os.path.split(path)
    return os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(folder))
