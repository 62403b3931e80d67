"""Lists the members of tars by their headers, without reading the content between them."""

from __future__ import annotations

import tarfile
from typing import BinaryIO, NamedTuple

from common import storage
from common.readable import describe_error
from data.archives.address import ByteRange
from data.archives.contents import read_address
from data.common.errors import InputError


class TarMember(NamedTuple):
    """A file in a tar: its name, and where its content begins and how long it is."""

    name: str
    offset: int
    num_bytes: int


_BLOCK = 512  # bytes
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


def list_members(path: str) -> tuple[list[TarMember], str]:
    """Returns the whole files in a tar, in their order, and what is wrong with the tar, "" if nothing is.

    Raises:
        InputError: If it is absent, compressed or not a tar.
    """
    found: list[TarMember] = []
    try:
        with storage.open_binary(path) as file:
            head = file.read(8)
            for magic, command in _COMPRESSED.items():
                if head.startswith(magic):
                    raise InputError(f"{path} is compressed and cannot be read at random: unpack it with {command}")
            file.seek(0)
            fault = _list_into(found, file)
            num_bytes = storage.state(path).num_bytes
    except FileNotFoundError as error:
        raise InputError(f"no file {path}: check the path", code="missing_audio") from error
    if fault and not found:
        raise InputError(f"{path} is not a tar ({fault}): fetch or make it again", code="damaged_shard")
    if found and found[-1].offset + found[-1].num_bytes > num_bytes:
        fault = f"it ends within {found.pop().name}"
    return found, f"{path} is not a whole tar ({fault}): fetch or make it again" if fault else ""


def _list_into(found: list[TarMember], file: BinaryIO) -> str:
    """Adds the files of a tar to a list until the end or a fault, and returns the fault, "" if there is none."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for item in tar:
                if item.size < 0:
                    return f"{item.name} has a negative size"
                if item.issparse():  # its content has holes, so it is no range of bytes
                    return f"{item.name} was written with tar --sparse"
                if item.isreg():
                    found.append(TarMember(item.name, item.offset_data, item.size))
            file.seek(tar.offset)
            # A tar that was cut between two files has no block of zeros at its end. `tarfile` takes a damaged header
            # for the end.
            end = file.read(_BLOCK)
            if len(end) < _BLOCK:
                return "its end is missing"
            return f"no header at byte {tar.offset}" if any(end) else ""
    # Damaged headers promise impossible sizes and places, and lists that `tarfile` reads recursively.
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return describe_error(error)


def read_member(path: str, member: TarMember) -> bytes:
    """Returns the content of a file in a tar; raises InputError if it cannot be read."""
    return read_address(str(ByteRange(path, member.offset, member.num_bytes))) or b""
