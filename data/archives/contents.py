"""Reads the bytes that an address names, from files that stay open for the next rows."""

from __future__ import annotations

import functools
import os
from typing import Protocol

from common import storage
from data.archives.address import ByteRange, parse_address
from data.archives.arrow import ArrowColumn
from data.archives.byte_file import ByteFile
from data.archives.parquet import ParquetColumn
from data.archives.tables import is_parquet
from data.common.errors import InputError

_MOST_OPEN = 512  # files; a process may usually have 1,024 open


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
    try:
        # A file that was replaced is opened again; behind a URL each look would be a request.
        state = None if storage.is_remote(address.path) else storage.state(address.path)
        if isinstance(address, ByteRange):
            return _read_range(address, state)
        content = _open_column(address.path, address.column, state).read(address.row)
    except FileNotFoundError as error:
        raise InputError(f"no file {address.path}: check the path", code="missing_audio") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): fetch or make it again") from error
    if content is None:
        raise InputError(f"{path} has no audio: leave the row out", code="missing_audio")
    return content


def _read_range(address: ByteRange, state: storage.FileState | None) -> bytes:
    content = _open_bytes(address.path, state).read(address.offset, address.num_bytes)
    if len(content) != address.num_bytes:
        raise InputError(f"{address} is outside the file: fetch or make it again")
    return content


@functools.lru_cache(_MOST_OPEN)
def _open_bytes(path: str, state: storage.FileState | None) -> ByteFile:
    del state  # part of the key
    return ByteFile(path)


@functools.lru_cache(_MOST_OPEN)
def _open_column(path: str, column: str, state: storage.FileState | None) -> _Column:
    file = _open_bytes(path, state)
    return ParquetColumn(file, column) if is_parquet(file) else ArrowColumn(path, column)
