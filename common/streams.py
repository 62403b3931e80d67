"""Standard output and standard error that a program outlives: closed, hung up, or on a full disk."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

# Nobody will ever read again what is written there.
_IS_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO}


class LastingStream:
    """A text stream whose faults stay with it: what cannot be written is dropped."""

    def __init__(self, stream: Any) -> None:
        """Keeps its argument.

        Args:
            stream: where the text goes; has a descriptor.
        """
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, or drops it; returns its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._settle(error)
        return len(text)

    def flush(self) -> None:
        """Flushes what was written, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._settle(error)

    def _settle(self, error: OSError) -> None:
        """Leads a descriptor that nobody reads any more to nowhere; a full disk may have room again."""
        if error.errno in _IS_GONE:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def outlive_readers() -> None:
    """Replaces sys.stdout and sys.stderr by streams that never end the program; for the main function of a command.

    Descriptors 0 to 2 that were closed before the program began lead nowhere from now on: a file opened later would get
    such a number, and what a library prints would land in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Gets the smallest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, LastingStream(stream))
