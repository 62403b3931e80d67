"""Reads the bytes that an address names, from files that stay open for the next rows."""

from __future__ import annotations

import functools
import os
from typing import Protocol, cast

from common import storage
from data.archives.address import ByteRange, parse_address
from data.archives.arrow import ArrowColumn
from data.archives.byte_file import ByteFile
from data.archives.parquet import ParquetColumn
from data.archives.tables import is_parquet
from data.common.errors import InputError
from data.common.files import most_open

_MOST_OPEN = 512
_LIMIT_DIVISOR = 2  # most Linux systems let a process open 1,024 files


class _Column(Protocol):
    def read(self, row: int) -> bytes | None:
        """Returns the value of a row; None if it has none."""


def read_address(path: str | os.PathLike[str]) -> bytes | None:
    """Returns the bytes of an address; None for the path of an ordinary file, which is not read.

    Raises:
        InputError: If the archive is absent, damaged or does not hold the place.
    """
    address = parse_address(path)
    if address is None:
        return None
    if "\0" in address.path:
        raise InputError(f"no file {address.path!r}: check the path", code="missing_audio")
    try:
        # A file that was replaced is opened again; behind a URL each look would be a request.
        state = None if storage.is_remote(address.path) else storage.state(address.path)
        if isinstance(address, ByteRange):
            return _read_range(address, state)
        column = cast(_Column, _open(address.path, address.column, state))
        content = column.read(address.row)
    except FileNotFoundError as error:
        raise InputError(f"no file {address.path}: check the path", code="missing_audio") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): fetch or make it again") from error
    if content is None:
        raise InputError(f"{path} has no audio: leave the row out", code="missing_audio")
    return content


def _read_range(address: ByteRange, state: storage.FileState | None) -> bytes:
    file = cast(ByteFile, _open(address.path, "", state))
    content = file.read(address.offset, address.num_bytes)
    if len(content) != address.num_bytes:
        raise InputError(f"{address} is outside the file: fetch or make it again")
    return content


@functools.lru_cache(most_open(_MOST_OPEN, _LIMIT_DIVISOR))
def _open(path: str, column: str, state: storage.FileState | None) -> ByteFile | _Column:
    """Opens a file, or with the name of a column that column of a table."""
    del state  # part of the key
    file = ByteFile(path)
    if not column:
        return file
    return ParquetColumn(file, column) if is_parquet(file) else ArrowColumn(path, column)
