"""Reads single values of a column of a Parquet file, page by page.

pyarrow reads a group of rows whole, and a file written by pandas is a single group. A page holds at most about a
thousand recordings, and usually a hundred or fewer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from data.archives.address import Cell
from data.archives.byte_file import ByteFile
from data.archives.parquet_pages import (
    DATA_ENCODINGS,
    PageHeader,
    decode_dictionary,
    decode_page,
    walk_pages,
)
from data.archives.tables import find_column, import_pyarrow, leaf_names, open_parquet, table_errors, view_bytes
from data.common.errors import InputError

_CODECS = {"SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli", "UNCOMPRESSED": ""}
_CACHED_BYTES = 2**26  # of decoded pages that the process keeps: neighbors of a row are often read next
Values = Sequence[memoryview | None]


class _Group(NamedTuple):
    """A column of a group of rows: its codec, and its pages with the first row of each, within the group."""

    codec: str
    dictionary: PageHeader | None
    pages: list[PageHeader]
    starts: np.ndarray


class ParquetColumn:
    """Values by row, from memory that holds some pages.

    column = ParquetColumn(ByteFile("train-00000-of-00001.parquet"), "audio.bytes")
    content = column.read(12)
    """

    def __init__(self, file: ByteFile, column: str):
        """Reads the footer; raises InputError if it is damaged or has no such column."""
        self._file, self._column = file, column
        self._key = object()  # of this file in the cache
        self._lock = threading.Lock()
        self._groups: dict[int, _Group | None] = {}
        with open_parquet(file.path) as table:
            self._metadata = table.metadata
            names = leaf_names(table)
            if column not in names:
                raise InputError(f"{file.path} has no column {column}: fetch or make it again")
            self._index = names.index(column)
            leaf = table.schema.column(self._index)
        self._max_level = leaf.max_definition_level
        self._is_flat = leaf.max_repetition_level == 0 and leaf.physical_type == "BYTE_ARRAY"
        counts = [self._metadata.row_group(number).num_rows for number in range(self._metadata.num_row_groups)]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def read(self, row: int) -> bytes | None:
        """Returns the value of a row, counted from 0; None if it has none."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        if number == len(self._ends):
            raise InputError(f"{self._file.path} has no row {row}: fetch or make it again")
        place = row - int(self._ends[number]) + self._metadata.row_group(number).num_rows
        with table_errors(str(Cell(self._file.path, row, self._column))):
            group = self._group(number)
            if group is None:
                values = _CACHE.get((self._key, number, -1), lambda: self._read_group(number))
            else:
                page = int(np.searchsorted(group.starts, place, side="right")) - 1
                place -= int(group.starts[page])
                values = _CACHE.get((self._key, number, page), lambda: self._read_page(number, group, page))
            value = values[place]
            return None if value is None else bytes(value)

    def _group(self, number: int) -> _Group | None:
        """Returns the pages of a group of rows, or None if pyarrow has to read it."""
        with self._lock:
            if number not in self._groups:
                self._groups[number] = self._find_pages(number)
            return self._groups[number]

    def _find_pages(self, number: int) -> _Group | None:
        chunk = self._metadata.row_group(number).column(self._index)
        if not self._is_flat or chunk.compression not in _CODECS:
            return None
        headers = walk_pages(self._file.read, _first_byte(chunk), chunk.total_compressed_size)
        pages = [header for header in headers if header.is_data]
        if any(header.encoding not in DATA_ENCODINGS for header in pages):
            return None
        counts = np.cumsum([0, *(header.num_values for header in pages)], dtype=np.int64)
        if counts[-1] != self._metadata.row_group(number).num_rows:
            raise ValueError(f"group {number} has {counts[-1]} values")
        dictionary = next((header for header in headers if not header.is_data), None)
        return _Group(_CODECS[chunk.compression], dictionary, pages, counts[:-1])

    def _read_page(self, number: int, group: _Group, page: int) -> Values:
        header = group.pages[page]
        dictionary: Values = ()
        if header.is_indexed and group.dictionary is not None:
            head = group.dictionary
            dictionary = _CACHE.get(
                (self._key, number, -2), lambda: decode_dictionary(self._body(head, group.codec), head.num_values)
            )
        return decode_page(header, self._max_level, self._body(header, group.codec), dictionary)

    def _body(self, header: PageHeader, codec: str) -> memoryview:
        content = self._file.read(header.start, header.compressed_bytes)
        plain = header.plain_bytes  # levels that stand before the compressed part
        if not codec or not header.is_compressed:
            return memoryview(content)
        pyarrow = import_pyarrow()
        body = pyarrow.decompress(content[plain:], header.num_bytes - plain, codec=codec)
        return memoryview(content[:plain] + body.to_pybytes()) if plain else memoryview(body).cast("B")

    def _read_group(self, number: int) -> Values:
        with open_parquet(self._file.path) as table:
            group = table.read_row_group(number, columns=[self._column])
        batches = (find_column(batch, self._column) for batch in group.to_batches())
        return [view_bytes(value) for batch in batches for value in batch]


def _first_byte(chunk: Any) -> int:
    """Returns where the pages of a column of a group begin; the dictionary usually comes first."""
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        return min(chunk.data_page_offset, chunk.dictionary_page_offset)
    return chunk.data_page_offset


class _Cache:
    """Decoded pages, the last used ones; threads that want the same page wait for one of them to decode it."""

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._found: OrderedDict[Any, Future[Values]] = OrderedDict()
        self._sizes: dict[Any, int] = {}

    def get(self, key: Any, load: Callable[[], Values]) -> Values:
        with self._lock:
            future = self._found.get(key)
            is_new = future is None
            if future is None:
                future = self._found[key] = Future()
            self._found.move_to_end(key)
        if is_new:
            try:
                values = load()
            except BaseException as error:
                with self._lock:
                    del self._found[key]
                future.set_exception(error)
                raise
            future.set_result(values)
            self._keep(key, sum(len(value) for value in values if value is not None))
        return future.result()

    def _keep(self, key: Any, size: int) -> None:
        with self._lock:
            self._sizes[key] = size
            while sum(self._sizes.values()) > self._most_bytes and len(self._sizes) > 1:
                oldest = next(name for name in self._found if name in self._sizes)
                del self._found[oldest], self._sizes[oldest]


_CACHE = _Cache(_CACHED_BYTES)
