"""Names of recordings inside other files."""

from __future__ import annotations

import pytest

from data.archives.address import ByteRange, Cell, archive_of, parse_address


@pytest.mark.parametrize(
    "address",
    [
        ByteRange("a/shard-000.tar", 1536, 46675),
        ByteRange("gs://bucket/a#b.tar", 0, 0),
        Cell("train.parquet", 12, "audio.bytes"),
        Cell("a b/train.arrow", 0, "wav & more/é#"),
    ],
)
def test_an_address_is_read_back_from_its_text(address):
    assert parse_address(str(address)) == address
    assert archive_of(str(address)) == address.path


def test_the_text_says_where_the_recording_is():
    assert str(ByteRange("s.tar", 1536, 46675)) == "s.tar#bytes=1536+46675"
    assert str(Cell("t.parquet", 12, "audio.bytes")) == "t.parquet#row=12&column=audio.bytes"


@pytest.mark.parametrize(
    "path",
    [
        "a.wav",
        "song #1.wav",
        "a.tar#bytes=5",
        "a.tar#bytes=-1+2",
        "a#row=x&column=b",
        "#bytes=1+2",
        f"a#bytes={9**30}+1",
    ],
)
def test_other_paths_are_ordinary_files(path):
    assert parse_address(path) is None
    assert archive_of(path) == path
