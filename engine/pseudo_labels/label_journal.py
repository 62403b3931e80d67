"""Keeps the labels of each row of the inputs, so that --mode=pseudo_label continues after an interruption."""

from __future__ import annotations

import heapq
import itertools
import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any

from common.json_files import describe, is_kind, parse_object
from engine.common.journal import Journal

_index_of = operator.itemgetter("index")


class LabelJournal(Journal):
    """A journal of the rows of the inputs, in which the last row of an index counts.

    A process appends rows of rising indices: those whose recordings have changed, then those that nobody has done. So
    the file is a few runs of rising indices, which are merged as they are read, in constant memory.

    Attributes:
        num_done: Number of rows of the inputs that are done, from the first one on.
        last_name: Field "name" of the last of them; "" without any.
        num_unversioned: Number of rows that do not say in which state their recordings were: an older version of this
            program wrote them, without "version" and "index".
    """

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        """Opens nothing yet, see `Journal`."""
        super().__init__(path, settings)
        self.num_done = 0
        self.last_name = ""
        self.num_unversioned = 0
        self._starts: list[int] = []  # byte at which each run begins
        self._last_index = -1

    def _note(self, row: Mapping[str, Any], start: int) -> None:
        """Counts a row, and notes where a run begins."""
        super()._note(row, start)
        index = row.get("index", self._last_index + 1)
        if not is_kind(index, int) or not 0 <= index <= self.num_done:
            raise ValueError(
                f"{self.path}: the index of a row is {describe(index)}, wanted 0 to {self.num_done}; delete the file "
                "to begin anew"
            )
        if index <= self._last_index or not self._starts:
            self._starts.append(start)
        self._last_index = index
        self.num_done = max(self.num_done, index + 1)
        if index == self.num_done - 1:
            self.last_name = str(row.get("name", ""))
        self.num_unversioned += "version" not in row

    def latest(self) -> Iterator[dict[str, Any]]:
        """Yields the row that counts of each index, in order; rows appended meanwhile are left out."""
        edges = itertools.pairwise([*self._starts, os.path.getsize(self.path)])
        runs = [self._read_run(start, end) for start, end in edges]
        # Among equal indices heapq.merge keeps the order of the runs.
        for _, rows in itertools.groupby(heapq.merge(*runs, key=_index_of), _index_of):
            *_, last = rows
            yield last

    def _read_run(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """Yields the rows between two bytes, each with its index."""
        index = -1
        with open(self.path, "rb") as lines:
            lines.seek(start)
            while lines.tell() < end:
                row = parse_object(lines.readline(), self.path)
                index = row.setdefault("index", index + 1)
                yield row
