"""Keeps a program running when a standard stream is closed, hung up or on a full disk, and silences libraries."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Errors of a stream that nobody reads any more.
_IS_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO}

# Two threads at a time would each save the other's null device, and leave it in place.
_SILENCE = threading.Lock()


class LastingStream:
    """A text stream that drops text it cannot write instead of raising."""

    def __init__(self, stream: Any) -> None:
        """Wraps a stream.

        Args:
            stream: Text stream with a file descriptor.
        """
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes or drops text and returns its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._settle(error)
        return len(text)

    def flush(self) -> None:
        """Flushes or drops the written text."""
        try:
            self._stream.flush()
        except OSError as error:
            self._settle(error)

    def _settle(self, error: OSError) -> None:
        """Redirects a descriptor that nobody reads to the null device; a full disk may have room again later."""
        if error.errno in _IS_GONE:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def outlive_readers() -> None:
    """Replaces sys.stdout and sys.stderr with streams that never end the program; for the main function of a command.

    Descriptors 0 to 2 that were closed before the program started are opened on the null device. Otherwise a file
    opened later would get such a number, and text that a library prints would be written to it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system assigns the smallest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, LastingStream(stream))


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Drops what libraries written in C++ print to standard error.

    The descriptor belongs to the whole process: lines of other threads are lost too, so keep the block short.
    """
    with _SILENCE, contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nobody would read it
            yield
            return
        stack.callback(os.close, kept)
        with open(os.devnull, "wb") as nowhere:
            stack.callback(os.dup2, kept, 2)
            os.dup2(nowhere.fileno(), 2)
        yield
