"""Reads ranges of bytes from one open file in any number of threads."""

from __future__ import annotations

import os

from common import storage


class ByteFile:
    """A file or URL that stays open.

    file = ByteFile("shard-000.tar")
    content = file.read(1536, 46675)
    """

    def __init__(self, path: str):
        """Opens the file; raises OSError if it is absent, a pipe or a device."""
        self.path = path
        self._local = None if storage.is_remote(path) else storage.open_regular(path)
        self.num_bytes = storage.state(path).num_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Returns up to `length` bytes from `offset`; raises OSError if they cannot be read."""
        length = max(0, min(length, self.num_bytes - offset))  # a damaged length must not fill the memory
        if self._local is None:
            return storage.read_range(self.path, offset, length)
        content = os.pread(self._local.fileno(), length, offset)
        while 0 < len(content) < length:  # the system returns at most 2 GB at once
            more = os.pread(self._local.fileno(), length - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content
