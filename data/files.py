"""Writing that is never half done, and by one process alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import InputError


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text to a temporary file beside `path`, then renames it into place.

    Args:
        path: the file; its folder is made when absent.
        text: the whole content.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder's lock, which ends with the process whatever happens to it.

    Raises:
        InputError: another process (or another holder in this one) has the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing to {folder}: wait until it is done"
            ) from error
        yield
    finally:
        os.close(handle)
