"""Names a recording inside another file by a path with a fragment: a range of bytes, or a row of a column.

shard-000.tar#bytes=1536+46675          46,675 bytes from byte 1536 on: the member of a tar
train.parquet#row=12&column=audio.bytes     row 12, counted from 0, of a column of a Parquet or Arrow file
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

_ADDRESS = re.compile(r"(.+)#(?:bytes=(\d{1,18})\+(\d{1,18})|row=(\d{1,18})&column=([^#&]+))", re.DOTALL)


class ByteRange(NamedTuple):
    """A range of bytes of a file.

    Attributes:
        path: File or URL.
        offset: First byte.
        num_bytes: Number of bytes.
    """

    path: str
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.path}#bytes={self.offset}+{self.num_bytes}"


class Cell(NamedTuple):
    """A value of a table.

    Attributes:
        path: Parquet or Arrow file, or the URL of a Parquet file.
        row: Row in the file, counted from 0.
        column: Column, "audio.bytes" for the field `bytes` of the column `audio`.
    """

    path: str
    row: int
    column: str

    def __str__(self) -> str:
        return f"{self.path}#row={self.row}&column={quote(self.column, safe='')}"


def parse_address(path: str | os.PathLike[str]) -> ByteRange | Cell | None:
    """Returns the place that a path with a fragment names; None for the path of an ordinary file."""
    path = os.fspath(path)
    found = _ADDRESS.fullmatch(path) if "#" in path else None
    if found is None:
        return None
    archive, offset, num_bytes, row, column = found.groups()
    if row is not None:
        return Cell(archive, int(row), unquote(column))
    return ByteRange(archive, int(offset), int(num_bytes))


def archive_of(path: str | os.PathLike[str]) -> str:
    """Returns the file that holds the bytes of a path: the archive of an address, and any other path itself."""
    address = parse_address(path)
    return os.fspath(path) if address is None else address.path
