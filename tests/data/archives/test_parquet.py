"""Single values of Parquet columns, beside those that pyarrow reads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.archives import parquet
from data.archives.address import Cell
from data.archives.byte_file import ByteFile
from data.archives.contents import read_address
from data.archives.parquet import ParquetColumn
from data.archives.parquet_pages import PageHeader, decode_page, walk_pages
from data.archives.tables import find_present
from data.common.errors import InputError

ROWS = 1300  # more than the 1,024 of a page
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def make_values(count: int = ROWS) -> list[bytes | None]:
    """Random values of random lengths; some are absent, empty or equal, as in a dictionary."""
    random = np.random.default_rng(0)
    values: list[bytes | None] = [random.bytes(int(random.integers(1, 300))) for _ in range(count)]
    values[3::7] = [None] * len(values[3::7])
    values[5::11] = [b""] * len(values[5::11])
    values[2::13] = [b"same"] * len(values[2::13])
    return values


def write(path: Path, values: list[bytes | None], **options: Any) -> Path:
    cells = [None if value is None and index % 2 else {"bytes": value} for index, value in enumerate(values)]
    pq.write_table(pa.table({"audio": pa.array(cells, AUDIO), "plain": pa.array(values, pa.binary())}), path, **options)
    return path


@pytest.mark.parametrize("compression", ["snappy", "none", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(("use_dictionary", "group"), [(True, None), (False, 100)])
def test_each_row_is_what_was_written(tmp_path, compression, version, use_dictionary, group):
    values = make_values()
    options = {"compression": compression, "data_page_version": version, "use_dictionary": use_dictionary}
    path = write(tmp_path / "t.parquet", values, row_group_size=group, data_page_size=4096, **options)
    for name in ("audio.bytes", "plain"):
        column = ParquetColumn(ByteFile(str(path)), name)
        assert [column.read(row) for row in range(ROWS)] == values
        assert find_present(str(path), name).tolist() == [value is not None for value in values]


def test_a_column_without_absent_values_has_no_levels(tmp_path):
    values = [b"a", b"bc", b""]
    schema = pa.schema([pa.field("x", pa.binary(), nullable=False)])
    pq.write_table(pa.table({"x": values}, schema=schema), tmp_path / "t.parquet")
    column = ParquetColumn(ByteFile(str(tmp_path / "t.parquet")), "x")
    assert [column.read(row) for row in range(3)] == values


def test_encodings_that_are_not_known_here_are_left_to_pyarrow(tmp_path, monkeypatch):
    encodings = {"audio.bytes": "DELTA_LENGTH_BYTE_ARRAY", "plain": "DELTA_BYTE_ARRAY", "audio.path": "PLAIN"}
    values = make_values()
    path = write(tmp_path / "t.parquet", values, use_dictionary=False, column_encoding=encodings, row_group_size=500)
    asked: list[int] = []
    read_group = ParquetColumn._read_group
    monkeypatch.setattr(ParquetColumn, "_read_group", lambda self, n: asked.append(n) or read_group(self, n))
    for name in ("audio.bytes", "plain"):
        column = ParquetColumn(ByteFile(str(path)), name)
        assert [column.read(row) for row in range(ROWS)] == values
    assert asked == [0, 1, 2] * 2


def test_a_page_is_read_and_not_the_group(tmp_path, monkeypatch):
    values: list[bytes | None] = [os.urandom(500) for _ in range(8000)]
    path = write(tmp_path / "t.parquet", values, use_dictionary=False, compression="none")
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    column = ParquetColumn(ByteFile(str(path)), "audio.bytes")
    column.read(0)
    sizes: list[int] = []
    read = ByteFile.read
    monkeypatch.setattr(ByteFile, "read", lambda self, at, size: sizes.append(size) or read(self, at, size))
    assert column.read(5000) == values[5000]
    assert len(sizes) == 1 and sizes[0] < 0.5 * 500 * 8000
    assert column.read(5001) == values[5001] and len(sizes) == 1  # of the same page


def test_threads_that_want_one_page_decode_it_once(tmp_path, monkeypatch):
    values = make_values()
    path = write(tmp_path / "t.parquet", values, use_dictionary=False)
    column = ParquetColumn(ByteFile(str(path)), "plain")
    loads: list[Any] = []
    read_page = ParquetColumn._read_page
    monkeypatch.setattr(ParquetColumn, "_read_page", lambda self, *args: loads.append(args) or read_page(self, *args))
    found: list[bytes | None] = []
    start = threading.Barrier(8)

    def read() -> None:
        start.wait()
        found.append(column.read(7))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [values[7]] * 8 and len(loads) == 1


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = parquet._Cache(250)
    loads: list[str] = []

    def get(key: str) -> None:
        cache.get(key, lambda: loads.append(key) or [memoryview(bytes(100))])

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert loads == ["a", "b", "c", "b"]


def test_a_page_that_cannot_be_read_is_tried_again():
    cache = parquet._Cache(100)
    with pytest.raises(OSError):
        cache.get("a", lambda: (_ for _ in ()).throw(OSError("no")))
    assert cache.get("a", lambda: [None]) == [None]


def test_a_damaged_page_names_its_row(tmp_path):
    values: list[bytes | None] = [b"first value", b"second value"]
    path = write(tmp_path / "t.parquet", values, use_dictionary=False, compression="none")
    content = path.read_bytes()
    length = len(b"second value").to_bytes(4, "little")
    path.write_bytes(content.replace(length + b"second value", b"\xff\xff\xff\0second value"))
    with pytest.raises(InputError, match=r"t\.parquet#row=1&column=plain is not a whole") as caught:
        read_address(str(Cell(str(path), 1, "plain")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [b"\0\3", b"\0\x0a"])  # groups of eight, or a run
def test_numbers_of_a_dictionary_with_one_entry_take_no_bits(packed):
    header = PageHeader(True, 0, 2, 2, 5, encoding=8, plain_bytes=0, is_compressed=True, is_version_2=False)
    assert decode_page(header, 0, memoryview(packed), [memoryview(b"same")]) == [b"same"] * 5


@pytest.mark.parametrize(
    "content",
    [
        b"\x1c" * 5000,  # structures in structures
        bytes([0x15, 0, 0x15, 10, 0x18, 1, 65, 0x2C, 0x15, 2, 0x15, 0, 0, 0]) + bytes(100),  # text for a size
        bytes([0x15, 0, 0x15, 10, 0x15, 1, 0x2C, 0x15, 2, 0x15, 0, 0, 0]) + bytes(100),  # a negative size
        bytes([0x15, 0, 0x16, *b"\xfe" * 9, 1, 0x15, 4, 0x2C, 0x15, 2, 0x15, 0, 0, 0]) + bytes(100),  # a huge one
    ],
)
def test_a_damaged_header_of_a_page_is_a_value_error(content):
    with pytest.raises(ValueError, match="the page at byte 0 has a"):
        walk_pages(lambda offset, length: content[offset : offset + length], 0, 50)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_of_numbers_is_one_line(tmp_path, kind):
    path, table = str(tmp_path / f"t.{kind}"), pa.table({"x": [1, 2]})
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match=r"column=x is not a whole .* \(the column holds int64, not bytes\)"):
        read_address(str(Cell(path, 0, "x")))


@pytest.mark.parametrize("seed", range(8))
def test_noise_in_a_file_is_an_error_of_one_line_or_another_value(tmp_path, seed):
    path = write(tmp_path / "t.parquet", make_values(300), compression="none", data_page_size=512)
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for place in random.integers(4, len(content), 60):
        content[place] = int(random.integers(256))
    path.write_bytes(content)
    for row in range(300):
        try:
            read_address(str(Cell(str(path), row, "audio.bytes")))
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("t.parquet#row=1300&column=plain", "t.parquet has no row 1300: fetch or make it again"),
        ("t.parquet#row=0&column=sound", "t.parquet has no column sound"),
        ("t.parquet#row=3&column=plain", "t.parquet#row=3&column=plain has no audio: leave the row out"),
        ("no.parquet#row=0&column=plain", "no file no.parquet: check the path"),
        ("text.parquet#row=0&column=plain", "text.parquet is not a whole Parquet or Arrow file"),
        ("cut.parquet#row=0&column=plain", "cut.parquet is not a whole Parquet or Arrow file"),
        ("t.parquet#bytes=4+99999999", "t.parquet#bytes=4+99999999 is outside the file"),
        ("t\0.tar#bytes=4+9", "no file 't\\x00.tar': check the path"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, monkeypatch, address, message):
    monkeypatch.chdir(tmp_path)
    content = write(tmp_path / "t.parquet", make_values()).read_bytes()
    (tmp_path / "text.parquet").write_text("not a table")
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    with pytest.raises(InputError) as caught:
        read_address(address)
    assert str(caught.value).startswith(message)


def test_a_file_that_was_replaced_is_opened_again(tmp_path):
    for values in ([b"first"], [b"second one"]):
        address = str(Cell(str(write(tmp_path / "t.parquet", values)), 0, "plain"))
        assert read_address(address) == values[0]
