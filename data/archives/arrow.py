"""Reads single values of a column of an Arrow file through its memory map."""

from __future__ import annotations

import threading

import numpy as np

from data.archives.address import Cell
from data.archives.tables import find_column, open_arrow, table_errors, view_bytes
from data.common.errors import InputError


class ArrowColumn:
    """Values by row. Nothing is copied before it is read, unless the file is compressed.

    column = ArrowColumn("data-00000-of-00001.arrow", "audio.bytes")
    content = column.read(12)
    """

    def __init__(self, path: str, column: str):
        """Finds the batches of the file; raises InputError if it cannot be read."""
        self._path, self._column = path, column
        self._lock = threading.Lock()  # of the reader, which has one position
        with open_arrow(path) as self._reader:
            # A stream has no list of its batches; they are views of the memory map.
            is_stream = not hasattr(self._reader, "get_batch")
            self._kept = list(self._reader) if is_stream else []
            counts = [batch.num_rows for batch in self._kept]
            if not is_stream:
                batches = range(self._reader.num_record_batches)
                counts = [self._reader.get_batch(number).num_rows for number in batches]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def read(self, row: int) -> bytes | None:
        """Returns the value of a row, counted from 0; None if it has none."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        if number == len(self._ends):
            raise InputError(f"{self._path} has no row {row}: fetch or make it again")
        with table_errors(str(Cell(self._path, row, self._column))):
            if self._kept:
                batch = self._kept[number]
            else:
                with self._lock:
                    batch = self._reader.get_batch(number)
            value = find_column(batch, self._column)[row - int(self._ends[number]) + batch.num_rows]
            content = view_bytes(value)
            return None if content is None else bytes(content)
