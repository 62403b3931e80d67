"""Keeps what a long command has done so far in a file, so that the same command continues after an interruption."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from common import storage
from common.json_files import MalformedFileError, parse_object
from common.storage import named_errors
from engine.common.files import json_line

SUFFIX = ".partial"


def journal_path(output: str, *, mode: str) -> str:
    """Returns the file of what a command has done so far: OUTPUT.partial.

    Args:
        output: The file or the folder that the command writes. Where it is a URL, to which nothing can be appended, the
            journal lies in the temporary folder.
        mode: The mode of the command, for a name there that says what it is.
    """
    if storage.is_remote(output):
        digest = hashlib.sha256(output.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return os.path.join(tempfile.gettempdir(), f"earshot-{mode}-{digest}{SUFFIX}")
    return f"{output.rstrip('/')}{SUFFIX}"


class Journal:
    """The rows done so far, a line of JSON each, behind a line with the settings that made them.

    with Journal("pseudo.jsonl.partial", settings) as journal:
        todo = rows[journal.num_rows :]
        journal.append([{"name": "a.wav", "labels": []}])

    A context manager that holds a lock on the file.

    Attributes:
        path: The file.
        num_rows: Number of rows done.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        """Opens nothing yet.

        Args:
            path: The file.
            settings: What must not change between the processes that write the rows.
        """
        self.path = path
        self.num_rows = 0
        self._settings = json_line({"settings": settings})
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Takes the lock, drops a line that was cut off while written, and counts the rows.

        Raises:
            ValueError: Another process writes the file, or it was begun with other settings.
        """
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._file = file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - closed by __exit__
        try:
            self._lock(file)
            end = self._read(file)
            file.truncate(end)
            if not end:
                self._write(self._settings.encode("utf-8"))
        except BaseException:
            file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives up the lock; a journal without rows is removed."""
        assert self._file is not None
        if not self.num_rows:
            Path(self.path).unlink(missing_ok=True)
        self._file.close()

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self.path}: another process is writing it; wait, or name another --output") from error
        except OSError:
            pass  # a file system without locks

    def _read(self, file: BinaryIO) -> int:
        """Counts the rows and returns the number of bytes of whole lines; none if there are only other settings."""
        file.seek(0)
        end = 0
        first = b""
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                if number == 0:
                    first = line
                    continue
                if number == 1:
                    self._check_settings(first)
                self._note(self._parse(line, number), end - len(line))
        return end if self.num_rows or first.decode("utf-8", "replace") == self._settings else 0

    def _check_settings(self, line: bytes) -> None:
        if line.decode("utf-8", "replace") == self._settings:
            return
        before, now = (
            parse_object(text, self.path).get("settings", {}) for text in (line, self._settings.encode("utf-8"))
        )
        changed = [name for name in now if before.get(name) != now[name]] if isinstance(before, dict) else []
        what = "; ".join(f"{name} was {before.get(name)!r}, is {now[name]!r}" for name in changed)
        raise ValueError(
            f"{self.path} holds the rows of an interrupted command with other settings ({what or 'unknown'}): give "
            "that command again, or delete the file to begin anew"
        )

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return parse_object(line, f"{self.path}:{number + 1}")
        except MalformedFileError as error:
            raise ValueError(f"{error}; delete the file to begin anew") from error

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows in one write, of which a kill leaves whole lines that count and at most one that does not.

        Raises:
            OSError: The file cannot be written; the rows written before stay.
        """
        assert self._file is not None
        start = os.fstat(self._file.fileno()).st_size
        lines = [json_line(row).encode("utf-8") for row in rows]
        self._write(b"".join(lines))
        for row, line in zip(rows, lines, strict=True):
            self._note(row, start)
            start += len(line)

    def _note(self, row: Mapping[str, Any], start: int) -> None:
        """Counts a row that begins at byte `start` of the file."""
        self.num_rows += 1

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        with named_errors(self.path):
            try:
                # A part may fit on a disk that is nearly full; writing the rest raises the error.
                while content:
                    content = content[self._file.write(content) :]
            except OSError:
                self._file.truncate(size)
                raise

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the rows, one in memory at a time."""
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines):
                if number:
                    yield self._parse(line, number)
