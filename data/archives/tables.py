"""Reads the columns of Parquet and Arrow files beside the audio, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from common import storage
from common.readable import describe_error
from data.archives.byte_file import ByteFile
from data.common.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET, _ARROW_FILE, _FEATHER_1 = b"PAR1", b"ARROW1", b"FEA1"
_BATCH_ROWS = 1024
_PAGE_ROWS = 1024  # most recordings of a page, as pyarrow writes it


def import_pyarrow() -> Any:
    """Returns pyarrow with its readers; raises InputError that names the extra if it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet and Arrow files need pyarrow, which is not installed ({error}): pip install -e '.[parquet]'"
        ) from error
    return pyarrow


def is_parquet(file: ByteFile) -> bool:
    """Returns whether a file is Parquet by its first bytes."""
    return file.read(0, 4) == _PARQUET


def _is_parquet_file(path: str) -> bool:
    with table_errors(path):
        return is_parquet(ByteFile(path))


@contextmanager
def open_parquet(path: str) -> Iterator[pa.parquet.ParquetFile]:
    """Opens a Parquet file; errors of pyarrow inside the context become an InputError."""
    pyarrow = import_pyarrow()
    with table_errors(path), storage.open_binary(path) as stream:
        # Without a buffer it would read a whole group of rows, audio included, before the first row.
        yield pyarrow.parquet.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)


@contextmanager
def open_arrow(path: str) -> Iterator[pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader]:
    """Opens an Arrow file or stream by its memory map; errors of pyarrow inside the context become an InputError."""
    pyarrow = import_pyarrow()
    if storage.is_remote(path):
        raise InputError(f"{path} is an Arrow file behind a URL: copy it to this machine, or write Parquet")
    with table_errors(path):
        start = ByteFile(path).read(0, 6)
        if start.startswith(_FEATHER_1):
            raise InputError(f"{path} is Feather of version 1, which pyarrow no longer writes: write it again")
        mapped = pyarrow.memory_map(path)
        yield pyarrow.ipc.open_file(mapped) if start == _ARROW_FILE else pyarrow.ipc.open_stream(mapped)


@contextmanager
def table_errors(path: str) -> Iterator[None]:
    """Converts errors of pyarrow to an InputError."""
    pyarrow = import_pyarrow()
    try:
        yield
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"no file {path}: check the path", code="missing_audio") from error
        reason = describe_error(error, 200)
        raise InputError(f"{path} is not a whole Parquet or Arrow file ({reason}): fetch or make it again") from error


def read_schema(path: str) -> pa.Schema:
    """Returns the columns of a Parquet or Arrow file and their types; raises InputError if it cannot be read."""
    if _is_parquet_file(path):
        with open_parquet(path) as table:
            return _check_names(table.schema_arrow)
    with open_arrow(path) as reader:
        return _check_names(reader.schema)


def _check_names(schema: pa.Schema) -> pa.Schema:
    """Returns the schema; raises UnicodeDecodeError for a damaged name, which later use would raise anywhere."""
    for fields in (schema, *(field.type for field in schema if hasattr(field.type, "fields"))):
        for field in fields:
            field.name.encode()
    return schema


def iterate_columns(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the columns of a file, some rows at a time; the other columns are not read.

    Args:
        path: Parquet file or URL, or Arrow file.
        columns: Columns, "audio.path" for the field `path` of `audio`; a batch has one column for each.

    Raises:
        InputError: If the file cannot be read.
    """
    pyarrow = import_pyarrow()
    if _is_parquet_file(path):
        with open_parquet(path) as table:
            for batch in table.iter_batches(_BATCH_ROWS, columns=list(columns)):
                yield _flatten(pyarrow, batch, columns)
        return
    with open_arrow(path) as reader:
        for batch in _batches(reader):
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield _flatten(pyarrow, batch.slice(start, _BATCH_ROWS), columns)


def estimate_page_bytes(path: str, column: str) -> int:
    """Returns about how many bytes of a Parquet file must be decoded for one value of a column; 0 for Arrow."""
    if not _is_parquet_file(path):
        return 0
    most = 0
    with open_parquet(path) as table:
        index = leaf_names(table).index(column)
        for number in range(table.metadata.num_row_groups):
            group = table.metadata.row_group(number)
            rows = max(1, group.num_rows)
            most = max(most, group.column(index).total_uncompressed_size * min(rows, _PAGE_ROWS) // rows)
    return most


def leaf_names(table: pa.parquet.ParquetFile) -> list[str]:
    """Returns the columns of a Parquet file by their place in a group of rows, "audio.bytes" for a field."""
    return [table.schema.column(index).path for index in range(len(table.schema))]


def find_present(path: str, column: str) -> np.ndarray:
    """Returns which rows of a file have a value in a column, bool [rows]; reads values only where a group has both.

    Raises:
        InputError: If the file cannot be read.
    """
    parts: list[np.ndarray] = []
    if not _is_parquet_file(path):
        with open_arrow(path) as reader:
            parts = [find_column(batch, column).is_valid().to_numpy(False) for batch in _batches(reader)]
        return np.concatenate([np.zeros(0, bool), *parts])
    with open_parquet(path) as table:
        names = leaf_names(table)
        for number in range(table.metadata.num_row_groups):
            group = table.metadata.row_group(number)
            statistics = group.column(names.index(column)).statistics
            num_absent = statistics.null_count if statistics is not None and statistics.has_null_count else -1
            if num_absent in (0, group.num_rows):
                parts.append(np.full(group.num_rows, num_absent == 0))
                continue
            for batch in table.iter_batches(64, row_groups=[number], columns=[column]):
                parts.append(find_column(batch, column).is_valid().to_numpy(False))
    return np.concatenate([np.zeros(0, bool), *parts])


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "get_batch"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _flatten(pyarrow: Any, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    return pyarrow.RecordBatch.from_arrays([find_column(batch, name) for name in columns], names=list(columns))


def view_bytes(value: pa.Scalar) -> memoryview | None:
    """Returns the bytes of a value without a copy; None if it has none.

    Raises:
        ValueError: If it holds something else.
    """
    if not value.is_valid:
        return None
    if not hasattr(value, "as_buffer"):
        raise ValueError(f"the column holds {value.type}, not bytes")
    return memoryview(value.as_buffer()).cast("B")


def find_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Returns a column of a batch, or the field of a column of structures; a missing structure has missing fields.

    Raises:
        pyarrow.ArrowInvalid: If the offsets of a damaged file lead out of its values, which reading would not notice.
    """
    import pyarrow.compute

    is_column = name in batch.schema.names
    column, _, field = (name, "", "") if is_column else name.partition(".")
    found = batch.column(column)
    found.validate(full=True)
    return found if is_column else pyarrow.compute.struct_field(found, field)
