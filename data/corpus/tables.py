"""Lists the rows of Parquet and Arrow files as the `datasets` library of Hugging Face lays them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import logging

from common import storage
from data.archives.address import Cell
from data.archives.tables import estimate_page_bytes, find_present, iterate_columns, read_schema
from data.common.errors import InputError
from data.corpus.columns import (
    ID_COLUMNS,
    OWN_FIELDS,
    PATH_COLUMNS,
    SPEAKER_COLUMNS,
    choose_column,
    choose_text_column,
)
from data.corpus.faults import Report
from data.corpus.records import Record
from data.corpus.utterance import stem

if TYPE_CHECKING:
    import pyarrow as pa

_AUDIO_NAMES = ("audio", "speech", "recording", "bytes", "wav", "flac", "mp3")
_LARGE_PAGE = 2**25  # bytes; the `datasets` library writes 100 recordings a page, some 10 MB
_SEGMENT_COLUMNS = ("offset", "duration")
_TIME_COLUMNS = (*_SEGMENT_COLUMNS, "start", "end")


class _Columns(NamedTuple):
    """Columns of a file; "" where there is none.

    Attributes:
        content: Bytes of the recordings.
        path: Paths of the recordings, or their names beside the bytes.
        text, speaker, split: Columns of these.
        ids: Columns that may hold ids, in the order of preference; the last are names of files.
        times: Columns of offset and duration.
        groups: Columns that may put utterances into groups.
    """

    content: str
    path: str
    text: str
    speaker: str
    split: str
    ids: tuple[str, ...]
    times: tuple[str, ...]
    groups: tuple[str, ...]

    def all(self) -> list[str]:
        """Returns the columns to read, without the content."""
        names = (self.path, self.text, self.speaker, self.split, *self.ids, *self.times, *self.groups)
        return list(dict.fromkeys(filter(None, names)))


def list_table_rows(files: Sequence[str], report: Report, *, text_column: str = "") -> Iterator[Record]:
    """Yields a record for each row; its `audio_filepath` is an address, or the path of a file beside the table.

    Args:
        files: Parquet or Arrow files of one corpus.
        report: Called with each row without audio, which is left out when it returns.
        text_column: Column of the transcripts; "" = a known one.

    Raises:
        InputError: If a file cannot be read, or has no audio or no transcripts.
    """
    columns = [_choose_columns(path, text_column) for path in files]
    _warn_of_large_pages(files, columns)
    id_column = _choose_ids(files, columns)
    is_numbered = len({stem(path) for path in files}) < len(files)
    for number, (path, found) in enumerate(zip(files, columns, strict=True)):
        prefix = f"{number:05d}-{stem(path)}" if is_numbered else stem(path)
        for record in _list_file(path, found, id_column, prefix):
            if "audio_filepath" in record.fields:
                yield record
            else:
                key = str(record.fields["utterance_id"])
                report(record.fault("has no audio, add it or leave the row out", code="missing_audio", key=key))


def _warn_of_large_pages(files: Sequence[str], columns: Sequence[_Columns]) -> None:
    for path, found in zip(files, columns, strict=True):
        num_bytes = estimate_page_bytes(path, found.content) if found.content else 0
        if num_bytes > _LARGE_PAGE:
            logging.warning(
                "%s is written in large pages: each recording is read with about %d MB around it; write it with "
                "row_group_size=100, or pack it with python -m data.prepare",
                path,
                num_bytes // 2**20,
            )
            return


def _list_file(path: str, found: _Columns, id_column: str, prefix: str) -> Iterator[Record]:
    """Yields a record for each row of a file; a row without audio has no `audio_filepath`."""
    has_content = find_present(path, found.content) if found.content else None
    row = 0
    for batch in iterate_columns(path, found.all()):
        columns = {name: batch.column(index).to_pylist() for index, name in enumerate(batch.schema.names)}
        for index in range(batch.num_rows):
            cells = {name: values[index] for name, values in columns.items()}
            fields: dict[str, object] = {name: cells[name] for name in (*found.times, *found.groups)}
            if has_content is not None and has_content[row]:
                fields["audio_filepath"] = str(Cell(path, row, found.content))
            elif isinstance(listed := cells.get(found.path), str):
                fields["audio_filepath"] = storage.join(storage.parent(path), listed)
            fields["utterance_id"] = _read_id(cells.get(id_column), id_column) or f"{prefix}-{row:06d}"
            fields["text"] = cells[found.text]
            fields["speaker"] = cells.get(found.speaker)
            fields["split"] = cells.get(found.split)
            yield Record(f"{path}, row {row}", fields, "")
            row += 1


def _read_id(value: object, column: str) -> str:
    """Returns a value of a column as an id; of a column of paths it is the name of the file without its suffix."""
    if value is None or value == "":
        return ""
    return str(value) if column in ID_COLUMNS else stem(str(value))


def _choose_columns(path: str, text_column: str = "") -> _Columns:
    """Returns the columns of a file that a corpus is made of.

    Raises:
        InputError: If it cannot be read, or has no audio or no transcripts.
    """
    schema = read_schema(path)
    _check_segment_columns(path, schema)
    names = [field.name for field in schema if _is_single(field.type)]
    content, audio_path = _find_audio(path, schema)
    return _Columns(
        content=content,
        path=audio_path,
        text=choose_text_column(names, text_column, path),
        speaker=choose_column(names, SPEAKER_COLUMNS),
        split="split" if "split" in names else "",
        ids=tuple(_list_id_columns(names, audio_path)),
        times=tuple(name for name in _TIME_COLUMNS if name in names),
        groups=tuple(field.name for field in schema if _makes_groups(field)),
    )


def _check_segment_columns(path: str, schema: pa.Schema) -> None:
    for name in _SEGMENT_COLUMNS:
        if name in schema.names and not _is_single(schema.field(name).type):
            raise InputError(f"{path}: the column {name} holds {schema.field(name).type}, wanted seconds as numbers")


def _list_id_columns(names: Sequence[str], audio_path: str) -> list[str]:
    """Returns the columns that may hold ids, in the order of preference: those of ids, then those of paths."""
    ids = [name for name in ID_COLUMNS if name in names]
    paths = [name for name in PATH_COLUMNS if name in names and name != audio_path]
    return [*ids, *([audio_path] if audio_path else []), *paths]


def _is_single(kind: pa.DataType) -> bool:
    """Returns whether values are single numbers or texts, which Python holds whatever they are."""
    import pyarrow as pa

    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_dictionary, types.is_boolean, types.is_integer)
    return any(test(kind) for test in (*tests, types.is_floating, types.is_decimal, types.is_null))


def _makes_groups(field: pa.Field) -> bool:
    import pyarrow as pa

    is_measured = pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    return (
        _is_single(field.type)
        and not is_measured
        and field.name not in (*OWN_FIELDS, *ID_COLUMNS, *PATH_COLUMNS, *_TIME_COLUMNS)
    )


def _find_audio(path: str, schema: pa.Schema) -> tuple[str, str]:
    """Returns the columns with the bytes and the paths of the recordings; one of them may be ""."""
    kinds = {field.name: field.type for field in schema}
    known = [name for name in _AUDIO_NAMES if name in kinds]
    for name in dict.fromkeys((*known, *kinds)):
        found = _find_audio_fields(path, name, kinds[name])
        if any(found):
            return found
    found = _find_plain_columns(kinds, known)
    if any(found):
        return found
    shown = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:12])[:300]
    raise InputError(f"{path} has no column audio with the bytes or paths of recordings: it has {shown or 'none'}")


def _find_audio_fields(path: str, name: str, kind: pa.DataType) -> tuple[str, str]:
    """Returns the fields of a column with the bytes and the paths of the recordings, each "" if there is none.

    Raises:
        InputError: If the column holds decoded samples instead.
    """
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return "", ""
    fields = {field.name: field.type for field in kind}
    if "array" in fields and "bytes" not in fields:
        raise InputError(
            f"{path}: the column {name} holds decoded samples, not recordings: save the dataset with "
            f"cast_column({name!r}, Audio(decode=False))"
        )
    content = f"{name}.bytes" if _is_binary(fields.get("bytes", pa.null())) else ""
    return content, f"{name}.path" if _is_text(fields.get("path", pa.null())) else ""


def _find_plain_columns(kinds: Mapping[str, pa.DataType], known: Sequence[str]) -> tuple[str, str]:
    """Returns the columns with the bytes and the paths of the recordings where no column has both."""
    binary = [name for name, kind in kinds.items() if _is_binary(kind)]
    texts = [name for name, kind in kinds.items() if _is_text(kind)]
    # A column of any name will do if no other one holds bytes.
    content = choose_column(binary, known) or (binary[0] if len(binary) == 1 else "")
    return content, choose_column(texts, (*PATH_COLUMNS, "audio"))


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _choose_ids(files: Sequence[str], columns: Sequence[_Columns]) -> str:
    """Returns the first column whose values all differ, or "" for the numbers of the rows; rows may lack a value.

    Ids of FLEURS are those of sentences, which several speakers read. A column `utterance_id` is taken as it is.
    """
    shared = [name for name in columns[0].ids if all(name in found.ids for found in columns)] if columns else []
    return next((name for name in shared if name == "utterance_id" or _are_different(files, name)), "")


def _are_different(files: Sequence[str], column: str) -> bool:
    """Returns whether a column has ids and all of them differ."""
    seen: set[str] = set()
    num_ids = 0
    for path in files:
        for batch in iterate_columns(path, [column]):
            ids = [found for value in batch.column(0).to_pylist() if (found := _read_id(value, column))]
            num_ids += len(ids)
            seen.update(ids)
    return 0 < num_ids == len(seen)
