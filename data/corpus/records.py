"""Reads the records of JSON-lines manifests and tables, and reports each fault at its line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

from common import storage
from common.json_files import MalformedFileError, parse_json
from data.common.errors import InputError
from data.corpus.columns import AUDIO_COLUMNS, TEXT_COLUMNS
from data.corpus.faults import Fault, Report

_SHOWN_CHARACTERS = 80
_HEAD_BYTES = 2**20  # of a manifest, enough to recognize a document that is no list of lines
_DELIMITERS = {",": "commas", "\t": "tabs"}
_GZIP_MAGIC = b"\x1f\x8b"


class Record(NamedTuple):
    """One utterance of a manifest or table.

    Attributes:
        place: File and first line of the record.
        fields: Key or column -> value.
        line: Text of the line.
    """

    place: str
    fields: dict[str, object]
    line: str

    def fault(self, what: str, *, code: str = "bad_record", key: str = "") -> Fault:
        """Returns a fault of this line; `key` is the id of the utterance if it is known."""
        message = f"{self.place} {what}: {excerpt(self.line)}" if self.line.strip() else f"{self.place} {what}"
        return Fault(code, message, {key or self.place: message if key else message.removeprefix(f"{self.place} ")})

    def malformed(self, error: MalformedFileError) -> Fault:
        """Returns a fault of this line from an error whose message begins with its place."""
        return self.fault(f"{str(error).removeprefix(self.place).lstrip(': ')}, correct the line")


def read_json_records(path: str, report: Report) -> list[Record]:
    """Reads a manifest with one JSON object per line.

    Args:
        path: File or URL.
        report: Called with each line that is not a JSON object.

    Raises:
        InputError: If the file is not UTF-8 text, or is one JSON document over several lines.
    """
    text = read_text(path)
    lines = text.split("\n")
    _refuse_document(path, text)
    records: list[Record] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse_line(path, number, line)
        if isinstance(record, Record):
            records.append(record)
        else:
            faults.append(record)
    if len(faults) > 1 and not records:
        raise InputError(
            f"{faults[0].message} (so are all its {len(faults)} lines: is it another format?)", code="bad_record"
        )
    for fault in faults:
        report(fault)
    return records


def _parse_line(path: str, number: int, line: str) -> Record | Fault:
    """Parses a line of a manifest."""
    record = Record(f"{path}:{number}", {}, line)
    try:
        value = parse_json(line, record.place)
    except MalformedFileError as error:
        reason = str(error).removeprefix(f"{record.place} ").replace("not valid JSON", "not JSON")
        return record.fault(f"{reason}, correct the line")
    if isinstance(value, dict):
        return record._replace(fields=value)
    return record.fault("is not a JSON object, correct the line")


def iterate_json_records(path: str, report: Report) -> Iterator[Record]:
    """Yields the records of a manifest with one JSON object per line, holding one line in memory.

    Args:
        path: File or URL.
        report: Called with each line that is not UTF-8 or not a JSON object.

    Raises:
        InputError: If the file is one JSON document over several lines.
    """
    with _open(path) as file:
        _refuse_document(path, file.read(_HEAD_BYTES).decode("utf-8-sig", "replace"))
    for number, content in iterate_lines(path):
        try:
            line = content.decode("utf-8")
        except UnicodeDecodeError:
            shown = content.decode("ascii", "replace")
            report(Record(f"{path}:{number}", {}, shown).fault("is not UTF-8 text, convert it"))
            continue
        record = _parse_line(path, number, line)
        if isinstance(record, Record):
            yield record
        else:
            report(record)


def iterate_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the number and the content of each line of a text file that is not blank, holding one line in memory."""
    with _open(path) as file:
        for number, content in enumerate(file, start=1):
            if number == 1:
                content = content.removeprefix(b"\xef\xbb\xbf")
            if content.decode("utf-8", "replace").strip():
                yield number, content.strip()


def read_table_records(path: str, delimiter: str, report: Report, *, needs_text: bool = True) -> list[Record]:
    """Reads a table with a header line.

    An unclosed quotation mark would swallow the rows below it, so reading resumes at the line after it.

    Args:
        path: File or URL.
        delimiter: "," or a tab. With tabs, as in Common Voice, quotation marks are part of the text.
        report: Called with each row that cannot be read.
        needs_text: Whether the table must have a column of transcripts.

    Raises:
        InputError: If the file is not UTF-8 text, or its header lacks a column.
    """
    lines = read_text(path).split("\n")
    header: list[str] | None = None
    records: list[Record] = []
    start = 0
    while start < len(lines):
        again = len(lines)
        for begin, end, cells, error in split_rows(lines, start, delimiter):
            if header is None:
                header = _check_header(path, begin, lines[begin], cells, delimiter, needs_text=needs_text)
                continue
            if not error and len(cells) in (0, len(header)):
                if cells:
                    place = f"{path}:{begin + 1}"
                    records.append(Record(place, dict(zip(header, cells, strict=True)), lines[begin]))
                continue
            opened = begin + _find_open_quote(lines[begin : end + 1], delimiter, to_end=bool(error))
            what = _describe_bad_row(error, len(cells), len(header))
            report(Record(f"{path}:{opened + 1}", {}, lines[opened]).fault(what))
            if error or end > begin:
                again = opened + 1
                break
        start = again
    if header is None:
        raise InputError(f"{path} is empty: give a table with a header line")
    return records


def read_text(path: str) -> str:
    """Returns the text of a file with line feeds between lines.

    Raises:
        InputError: If it is not UTF-8; names the line.
    """
    with _open(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from after the byte order mark.
        position = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        number = content.count(b"\n", 0, position) + 1
        line = content[content.rfind(b"\n", 0, position) + 1 :].split(b"\n")[0]
        name = " but UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        shown = "" if name else f", line {number}: {excerpt(line.decode('ascii', 'replace'))}"
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}){name}, convert it{shown}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def with_text(records: Iterable[Record], text_column: str) -> Iterable[Record]:
    """Returns the records with the named column as their only text; as they are if it is ""."""
    if not text_column:
        return records
    return [
        record._replace(
            fields={name: value for name, value in record.fields.items() if name not in TEXT_COLUMNS}
            | {"text": record.fields.get(text_column)}
        )
        for record in records
    ]


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """Opens a list, which may be compressed with gzip under any name."""
    with storage.open_binary(path) as file:
        is_compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not is_compressed:
            yield file
            return
        try:
            with gzip.open(file) as content:
                yield cast(BinaryIO, content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path} is damaged ({error}): compress it with gzip or fetch it again") from error


def excerpt(line: str) -> str:
    """Returns the printable beginning of a line."""
    line = "".join(character if character.isprintable() else " " for character in line[: 2 * _SHOWN_CHARACTERS])
    line = line.strip()
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."


def _refuse_document(path: str, text: str) -> None:
    """Refuses a JSON array, or objects that span lines, because otherwise each line would be a fault."""
    begin = text.lstrip()
    if not begin.startswith(("[", "{")):
        return
    first_line = begin[: begin.find("\n")] if "\n" in begin else begin
    spreads = not _is_json(first_line) and bool(begin[len(first_line) :].strip())
    what = ""
    if begin.startswith("["):
        # An array of objects in one line is a document; another array is a bad line.
        holds_objects = begin[1:].lstrip().startswith("{")
        what = "one JSON array" if spreads or holds_objects else ""
    elif spreads and _starts_with_value(begin):
        what = "JSON spread over several lines"
    if what:
        number = text[: len(text) - len(begin)].count("\n") + 1
        raise InputError(
            f"{path} is {what}; write one object a line (line {number}: {excerpt(first_line)})", code="bad_record"
        )


def _is_json(text: str) -> bool:
    try:
        parse_json(text, "")
    except MalformedFileError:
        return False
    return True


def _starts_with_value(text: str) -> bool:
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]


def _check_header(
    path: str, number: int, line: str, cells: Sequence[str], delimiter: str, *, needs_text: bool
) -> list[str]:
    header = [cell.strip() for cell in cells]
    for names in (AUDIO_COLUMNS, TEXT_COLUMNS):
        present = [name for name in names if name in header]
        if not present and (needs_text or names is AUDIO_COLUMNS):
            raise InputError(
                f"{path}:{number + 1} has no column {' or '.join(names[:2])}, with {_DELIMITERS[delimiter]} between "
                f"the columns: {excerpt(line) or 'an empty line'}"
            )
        for name in present:
            if header.count(name) > 1:
                raise InputError(f"{path}:{number + 1} has the column {name} twice: {excerpt(line)}")
    return header


def _describe_bad_row(error: str, num_cells: int, num_columns: int) -> str:
    if error:
        return f"is malformed ({error}), close or double the quotation mark"
    return f"has too few or too many columns, {num_cells} and not the {num_columns} of the header"


def split_rows(lines: Sequence[str], start: int, delimiter: str) -> Iterator[tuple[int, int, list[str], str]]:
    """Yields (first line, last line, cells, error or "") from line `start` on; stops after a malformed row."""
    text = (f"{lines[number]}\n" for number in range(start, len(lines)))
    if delimiter == "\t":
        reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        first = start + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, max(first, start + reader.line_num - 1), [], str(error)
            return
        yield first, start + reader.line_num - 1, cells, ""


def _find_open_quote(lines: Sequence[str], delimiter: str, *, to_end: bool) -> int:
    """Returns the line of the quotation mark that is not closed on its line, or at which parsing stops."""
    opened, is_open, at_start = 0, False, True
    for number, line in enumerate(lines):
        position = 0
        while position < len(line):
            character = line[position]
            if is_open and character == '"':
                if line[position + 1 : position + 2] == '"':
                    position += 1
                else:
                    is_open = False
                    if to_end and line[position + 1 : position + 2] not in ("", delimiter):
                        return opened
            elif not is_open and character == '"' and at_start:
                is_open, opened = True, number
            at_start = character == delimiter and not is_open
            position += 1
        if is_open and not to_end:
            return opened
        at_start = not is_open
    return opened
