"""Lists of the files in tars."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from data.archives.tar import list_members, read_member
from data.common.errors import InputError


def make_tar(path: Path, files: dict[str, bytes], **options) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


FILES = {"a.flac": b"x" * 700, "a.txt": b"hello", f"folder/{'long' * 40}.wav": b"", "b.flac": bytes(range(256)) * 8}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_found_by_their_headers(tmp_path, format):
    path = str(make_tar(tmp_path / "s.tar", FILES, format=format))
    members, fault = list_members(path)
    assert fault == ""
    assert {member.name: read_member(path, member) for member in members} == FILES


@pytest.mark.parametrize(("cut", "reason"), [(100, "it ends within b.flac"), (-300, "its end is missing")])
def test_of_a_tar_that_was_cut_the_whole_files_are_listed(tmp_path, cut, reason):
    path = make_tar(tmp_path / "s.tar", FILES, format=tarfile.GNU_FORMAT)
    last = list_members(str(path))[0][-1]
    path.write_bytes(path.read_bytes()[: last.offset + cut])
    members, fault = list_members(str(path))
    assert [member.name for member in members] == list(FILES)[:-1]
    assert fault == f"{path} is not a whole tar ({reason}): fetch or make it again"


def test_a_tar_that_was_cut_between_files_is_not_whole(tmp_path):
    path = make_tar(tmp_path / "s.tar", FILES)
    last = list_members(str(path))[0][-1]
    path.write_bytes(path.read_bytes()[: last.offset + last.num_bytes])
    members, fault = list_members(str(path))
    assert [member.name for member in members] == list(FILES)
    assert "its end is missing" in fault


def test_what_is_no_plain_tar_is_one_line(tmp_path):
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress(make_tar(tmp_path / "s.tar", FILES).read_bytes()))
    (tmp_path / "text.tar").write_text("no tar\n" * 200)
    for path, message in [
        (packed, "is compressed and cannot be read at random: unpack it with gunzip"),
        (tmp_path / "text.tar", "is not a tar"),
        (tmp_path / "none.tar", "no file"),
    ]:
        with pytest.raises(InputError, match=message):
            list_members(str(path))


def make_header(size: bytes, kind: bytes = b"0") -> bytes:
    """The header of a file b.txt with these bytes as its size."""
    header = bytearray(tarfile.TarInfo("b.txt").tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (make_header(b"%011o\0" % 3)[:500] + b"x" * 12, "no header at byte 1024"),
        (make_header(b"\x80" + b"\x7f" * 11), "it ends within b.txt"),
        # What Python says of the others differs with its version.
        (make_header(b"\xff" * 10 + b"\xfc\0"), ""),
        (make_header(b"\xff" * 10 + b"\xfc\0", b"L"), ""),
        (make_header(b"\x80" + b"\x7f" * 11, b"x"), ""),
        (
            make_header(b"%011o\0" % 22, b"x") + b"22 GNU.sparse.map=x,y\n".ljust(512, b"\0") + make_header(b"0" * 12),
            "",
        ),
        ((make_header(b"%011o\0" % 4, b"L") + b"abcd".ljust(512, b"\0")) * 2000, ""),
    ],
)
def test_a_damaged_header_is_told_and_the_files_before_it_are_listed(tmp_path, damaged, reason):
    path = make_tar(tmp_path / "s.tar", {})
    before = make_tar(tmp_path / "a.tar", {"a.txt": b"abc"}).read_bytes()[512:1536]  # without the folder
    path.write_bytes(before + damaged + bytes(1024))
    members, fault = list_members(str(path))
    assert [member.name for member in members] == ["a.txt"]
    assert fault.startswith(f"{path} is not a whole tar ({reason}") and "\n" not in fault
