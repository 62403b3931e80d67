"""Merges marks of wrong transcripts into manifests.

A mark with a correction replaces the text, another one removes the row. A mark is what report.html and doctor.html
export, one JSON object a line: `utterance_id`, `text` (the transcript that was marked), `correction` (absent if nobody
knows what is said) and `set`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common import storage
from common.json_files import MalformedFileError, optional_field, parse_object
from common.json_files import field as json_field
from data.common.errors import InputError
from data.corpus.columns import TEXT_COLUMNS
from data.corpus.faults import Fault
from data.corpus.manifest import delimiter_of, iterate_rows
from data.corpus.records import iterate_lines, read_text, split_rows


class Mark(NamedTuple):
    """A transcript that a person has marked as wrong.

    Attributes:
        utterance_id: Id of the utterance.
        text: Transcript that was marked.
        correction: What is said; "" if the utterance is to be left out.
        place: File and line of the mark.
    """

    utterance_id: str
    text: str
    correction: str
    place: str

    def fits(self, text: str) -> bool:
        """Returns whether a transcript is the marked one, whose punctuation and case a report may have dropped."""
        return _letters(self.text) == _letters(text)

    def contradicts(self, other: Mark) -> bool:
        """Returns whether another mark of the utterance says something else."""
        return self.correction != other.correction or not self.fits(other.text)


@dataclass
class Merged:
    """Counts the marks that were merged into a manifest, and keeps what they changed.

    Attributes:
        corrected: Ids whose text was replaced.
        left_out: Ids whose row was removed.
        before: Ids that were merged before.
        faults: One line for each mark that was not merged.
        changes: A JSON object for each changed row, with what it was.
    """

    corrected: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)

    def merge(self, mark: Mark, text: str, line: str) -> str | None:
        """Notes a row of the marked utterance and returns its new text: the same, a correction, or None = left out."""
        if mark.correction and mark.correction == " ".join(text.split()):
            self.before.append(mark.utterance_id)
            return text
        if not mark.fits(text):
            self.faults.append(
                f"{mark.place} is not merged: it marks {mark.text!r}, and the transcript of {mark.utterance_id} is now "
                f"{text!r}; make the page again and mark it there"
            )
            return text
        (self.corrected if mark.correction else self.left_out).append(mark.utterance_id)
        change = {"correction": mark.correction} if mark.correction else {}
        self.changes.append({"utterance_id": mark.utterance_id, "text": text, **change, "line": line})
        return mark.correction or None

    def miss(self, marks: Iterable[Mark], where: str, changed: Iterable[Mapping[str, Any]]) -> None:
        """Notes the marks whose utterance is not there, except those that were left out before."""
        gone = {(item.get("utterance_id"), item.get("text")) for item in changed}
        for mark in marks:
            if (mark.utterance_id, mark.text) in gone or any(
                name == mark.utterance_id and isinstance(text, str) and mark.fits(text) for name, text in gone
            ):
                self.before.append(mark.utterance_id)
            else:
                self.faults.append(f"{mark.place} is not merged: {where} has no utterance {mark.utterance_id}")


def read_marks(paths: Sequence[str], set: str = "") -> tuple[dict[str, Mark], list[str]]:
    """Reads exported marks.

    Args:
        paths: Files of exported marks.
        set: Keeps the marks of this set; "" = all.

    Returns:
        (utterance id -> its mark, a line about each mark that cannot be used).

    Raises:
        InputError: If a file cannot be read, or has no mark of the set.
    """
    marks: dict[str, Mark] = {}
    faults: list[str] = []
    sets: dict[str, None] = {}
    for mark, own in (found for path in paths for found in _iterate_marks(path, faults)):
        sets[own] = None
        if set and own != set:
            continue
        name, other = mark.utterance_id, marks.get(mark.utterance_id)
        if other is not None and mark.contradicts(other):
            faults.append(f"{mark.place} is not merged: it contradicts {other.place} about {name}; keep one of the two")
        else:
            marks[name] = mark
    if not marks and not faults:
        has = f"of {set}; it has {', '.join(map(repr, sets)) or 'none'}" if set else "at all"
        raise InputError(
            f"{', '.join(map(str, paths))} has no mark {has}: mark transcripts on the page and export them"
        )
    return marks, faults


def _iterate_marks(path: str, faults: list[str]) -> Iterator[tuple[Mark, str]]:
    """Yields the marks of a file and the set of each; adds a line to `faults` for each that is none."""
    if not storage.is_file(path):
        raise InputError(f"no file {path}: give one that was exported from report.html or doctor.html")
    for number, line in iterate_lines(path):
        try:
            yield _read_mark(line, f"{path}:{number}")
        except MalformedFileError as error:
            faults.append(f"{error}; export the marks again")


def _read_mark(line: bytes, place: str) -> tuple[Mark, str]:
    """Returns the mark of a line and the name of its set; raises MalformedFileError if it is none."""
    record = parse_object(line, place)
    name, text = (json_field(record, key, str, place) for key in ("utterance_id", "text"))
    correction = " ".join(optional_field(record, "correction", str, place, "").split())
    return Mark(name, text, correction, place), optional_field(record, "set", str, place, "")


def merge_marks(
    path: str, marks: Mapping[str, Mark], changed: Sequence[Mapping[str, Any]] = (), text_column: str = ""
) -> tuple[str, Merged]:
    """Merges marks into the text of a .jsonl, .csv or .tsv manifest; other lines stay byte for byte.

    Args:
        path: Manifest.
        marks: Utterance id -> its mark.
        changed: What earlier merges have changed.
        text_column: Key or column of the transcripts; "" = the known ones.

    Returns:
        (the new content, what became of the marks).

    Raises:
        InputError: If the manifest cannot be read.
    """
    content = storage.read_bytes(path)
    if content[:2] == b"\x1f\x8b":
        raise InputError(f"{path} is compressed: unpack it, marks are merged into plain manifests")
    read_text(path)  # refuses what is not UTF-8
    merged, ignored = Merged(), list[Fault]()
    rows = list(iterate_rows(path, ignored.append))
    delimiter = delimiter_of(path)
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)" if delimiter else r"(?<=\n)", content.decode())
    bare = _bare(lines) if delimiter else []
    missing, names = dict(marks), (text_column,) if text_column else TEXT_COLUMNS
    for row in rows:
        mark = marks.get(row.utterance_id)
        if mark is None:
            continue
        missing.pop(row.utterance_id, None)
        first = int(row.place.rpartition(":")[2]) - 1
        last = next(split_rows(bare, first, delimiter))[1] if delimiter else first
        line = "".join(lines[first : last + 1])
        before, rewrite = _read_cells(line, bare, delimiter, names) if delimiter else _read_json(line, names)
        text = merged.merge(mark, before, line.rstrip("\r\n").removeprefix("\ufeff"))
        if text == before:
            continue
        written = "" if text is None else rewrite(text)
        lines[first : last + 1] = [written, *[""] * (last - first)]
    merged.miss(missing.values(), path, changed)
    return "".join(lines), merged


def _read_json(line: str, names: Sequence[str]) -> tuple[str, Callable[[str], str]]:
    """Returns the transcript of a line, under the first of the names that it has, and what writes another one."""
    body = line.rstrip("\r\n")
    mark = "\ufeff" if body.startswith("\ufeff") else ""
    record = json.loads(body.removeprefix("\ufeff"))
    name = next((name for name in names if record.get(name) is not None), names[0])

    def rewrite(text: str) -> str:
        return f"{mark}{json.dumps({**record, name: text}, ensure_ascii=False)}{line[len(body) :]}"

    return str(record.get(name, "")), rewrite


def _read_cells(
    line: str, table: Sequence[str], delimiter: str, names: Sequence[str]
) -> tuple[str, Callable[[str], str]]:
    """Returns the transcript of a row of a table, whose first line is the header, and what writes another one."""
    body = line.rstrip("\r\n")
    cells = next(split_rows(_bare(body.split("\n")), 0, delimiter))[2]
    header = next(found for _, _, found, _ in split_rows(table, 0, delimiter))
    name = next((name for name in names if name in header), "")
    if not name:
        raise InputError(f"the table has no column {' or '.join(names)}: give --text_column")
    place = header.index(name)

    def rewrite(text: str) -> str:
        changed = [*cells[:place], text, *cells[place + 1 :]]
        if delimiter == "\t":  # read without quotation marks
            return delimiter.join(changed) + line[len(body) :]
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter, lineterminator="").writerow(changed)
        return file.getvalue() + line[len(body) :]

    return cells[place], rewrite


def _bare(lines: Sequence[str]) -> list[str]:
    """Returns lines without their ends, as the reader of tables takes them."""
    return [line.rstrip("\r\n").removeprefix("\ufeff") for line in lines]


def changes_path(path: str | os.PathLike[str]) -> str:
    """Returns the file beside a manifest that keeps what merges have changed in it."""
    return f"{os.path.splitext(os.fspath(path))[0]}.changes.jsonl"


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in plain if character.isalnum()) or "".join(plain.split())
