"""Single values of Arrow files and streams."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.feather
import pytest

from data.archives.address import Cell
from data.archives.arrow import ArrowColumn
from data.archives.contents import read_address
from data.archives.tables import find_present
from data.common.errors import InputError

VALUES = [b"abc", None, b"", *(bytes([number % 256]) * number for number in range(600))]


def make_table() -> pa.Table:
    audio = pa.array(
        [None if value is None else {"bytes": value} for value in VALUES], pa.struct([("bytes", pa.binary())])
    )
    return pa.table({"audio": audio, "plain": pa.array(VALUES, pa.large_binary())})


@pytest.mark.parametrize("kind", ["stream", "file", "compressed"])
def test_each_row_is_what_was_written(tmp_path, kind):
    path, table = str(tmp_path / "t.arrow"), make_table()
    if kind == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    else:
        compression = "lz4" if kind == "compressed" else "uncompressed"
        pyarrow.feather.write_feather(table, path, compression=compression, chunksize=100)
    for name in ("audio.bytes", "plain"):
        column = ArrowColumn(path, name)
        assert [column.read(row) for row in range(len(VALUES))] == VALUES
        assert find_present(path, name).tolist() == [value is not None for value in VALUES]


def test_what_is_not_there_is_one_line(tmp_path):
    path = str(tmp_path / "t.arrow")
    with pa.ipc.new_stream(path, make_table().schema) as writer:
        writer.write_table(make_table())
    for row, column, message in [(603, "plain", "has no row 603"), (0, "sound", "sound"), (1, "plain", "has no audio")]:
        with pytest.raises(InputError, match=message) as caught:
            read_address(str(Cell(path, row, column)))
        assert path in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is an Arrow file behind a URL: copy it"):
        ArrowColumn("ram://x/t.arrow", "plain")


def test_a_stream_that_ends_early_is_one_line(tmp_path):
    path = tmp_path / "t.arrow"
    with pa.ipc.new_stream(str(path), make_table().schema) as writer:
        writer.write_table(make_table(), max_chunksize=100)
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(InputError, match=r"t\.arrow is not a whole Parquet or Arrow file"):
        read_address(str(Cell(str(path), 0, "plain")))
