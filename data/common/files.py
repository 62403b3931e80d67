"""Writing that is never half done, and by one process alone."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import storage
from data.common.errors import InputError


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text to a temporary file beside `path`, then renames it into place.

    Args:
        path: the file, or a URL; its folder is made when absent.
        text: the whole content.
    """
    if storage.is_remote(path):
        storage.make_dirs(os.path.dirname(os.fspath(path)))
        storage.write_bytes(f"{os.fspath(path)}.tmp", text.encode())
        storage.replace(f"{os.fspath(path)}.tmp", path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class Lock:
    """A folder's lock, as `only_writer` holds it."""

    def __init__(self, handle: int | None):
        self._handle = handle

    def share(self) -> None:
        """Lets `join_writer` of worker processes in; the lock lasts until the last of them ends."""
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def only_writer(folder: str | os.PathLike[str], *, wait_secs: float = 0.0) -> Iterator[Lock]:
    """Holds a folder's lock, which ends with the process whatever happens to it.

    Args:
        folder: there already; a URL has no lock, and is trusted.
        wait_secs: how long to wait for another holder, such as the workers of a process just killed.

    Raises:
        InputError: another process (or another holder in this one) has the lock.
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
    """Holds a lock that was shared, from a worker process and until that ends."""
    if not storage.is_remote(folder):
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
