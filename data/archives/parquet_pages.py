"""Decodes pages of a Parquet column of byte arrays: headers, definition levels, plain and dictionary encodings.

The format: https://parquet.apache.org/docs/file-format/data-pages
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # types of pages
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8
DATA_ENCODINGS = (_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY)
_HEAD_BYTES = 2**12  # of a header, which holds the smallest and the largest value of a page
_MOST_HEAD_BYTES = 2**26
_MOST_BITS = 32  # of an entry's number


class PageHeader(NamedTuple):
    """A page of a column.

    Attributes:
        is_data: Whether it holds rows; else it is the dictionary.
        start: First byte of its content in the file.
        compressed_bytes: Bytes of its content in the file.
        num_bytes: Bytes of its content.
        num_values: Rows, or entries of the dictionary.
        encoding: Encoding of the values.
        plain_bytes: Bytes of the levels that stand uncompressed before the values (version 2); else 0.
        is_compressed: Whether the values are compressed with the codec of the column.
        is_version_2: Whether the levels have no length of their own.
    """

    is_data: bool
    start: int
    compressed_bytes: int
    num_bytes: int
    num_values: int
    encoding: int
    plain_bytes: int
    is_compressed: bool
    is_version_2: bool

    @property
    def is_indexed(self) -> bool:
        """True if the values are entries of the dictionary."""
        return self.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)


def walk_pages(read: Callable[[int, int], bytes], start: int, num_bytes: int) -> list[PageHeader]:
    """Returns the pages of a column of a group of rows without reading their content.

    Args:
        read: Returns bytes of the file from (offset, length).
        start: First byte of the column.
        num_bytes: Bytes of the column.

    Raises:
        ValueError: If a header is damaged.
    """
    pages: list[PageHeader] = []
    position, end = start, start + num_bytes
    while position < end:
        page = _read_header(read, position)
        if page.start + page.compressed_bytes > end:
            raise ValueError(f"the page at byte {position} is outside its column")
        pages.append(page)
        position = page.start + page.compressed_bytes
    return pages


def _read_header(read: Callable[[int, int], bytes], position: int) -> PageHeader:
    """Returns the page whose header begins at a byte of the file."""
    fields, size = _read_header_fields(read, position)
    try:
        kind, start = fields[1], position + size
        # 5, 7 and 8 are the headers of data, dictionary and data of version 2.
        inner = fields[{_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}[kind]]
        is_second = kind == _DATA_2
        page = PageHeader(
            is_data=kind != _DICTIONARY,
            start=start,
            compressed_bytes=fields[3],
            num_bytes=fields[2],
            num_values=inner[1],
            encoding=inner[4 if is_second else 2],
            plain_bytes=inner[5] + inner[6] if is_second else 0,
            is_compressed=inner.get(7, True) if is_second else True,
            is_version_2=is_second,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the page at byte {position} has a damaged header") from error
    numbers = (page.compressed_bytes, page.num_bytes, page.num_values, page.encoding, page.plain_bytes)
    if not all(isinstance(number, int) and 0 <= number < 2**31 for number in numbers):
        raise ValueError(f"the page at byte {position} has a damaged header")
    return page


def _read_header_fields(read: Callable[[int, int], bytes], position: int) -> tuple[dict[int, Any], int]:
    """Returns field number -> value of the header at a byte of the file, and the bytes of the header."""
    length = _HEAD_BYTES
    while True:
        content = read(position, length)
        try:
            return _Thrift(content).read_struct()
        except IndexError as error:
            if len(content) < length or length > _MOST_HEAD_BYTES:
                raise ValueError(f"the page at byte {position} has no whole header") from error
            length *= 16
        except RecursionError as error:
            raise ValueError(f"the page at byte {position} has a header that is nested too deeply") from error


class _Thrift:
    """Reads one structure of Thrift's compact protocol; raises IndexError at the end of the bytes."""

    def __init__(self, content: bytes):
        self._content, self._position = content, 0

    def read_struct(self) -> tuple[dict[int, Any], int]:
        """Returns field number -> value, and the bytes read."""
        return self._struct(), self._position

    def _byte(self) -> int:
        self._position += 1
        return self._content[self._position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number in a header has no end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 0x0F)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 12:
            return self._struct()
        if kind not in (7, 8):  # no list or map stands in the header of a page
            raise ValueError(f"a header has a field of type {kind}")
        length = 8 if kind == 7 else self._varint()
        self._position += length
        if self._position > len(self._content):
            raise IndexError
        return None  # statistics, which nothing here reads


def decode_dictionary(body: memoryview, count: int) -> list[memoryview | None]:
    """Returns the entries of a dictionary page."""
    return list(_split_plain(body, count))


def decode_page(
    header: PageHeader, max_level: int, body: memoryview, dictionary: Sequence[memoryview | None]
) -> list[memoryview | None]:
    """Returns the values of a page, None for those that are absent.

    Args:
        header: Header of the page.
        max_level: Definition level of a value that is present; 0 if none can be absent.
        body: Content of the page, decompressed.
        dictionary: Entries that an indexed page refers to.

    Raises:
        ValueError: If the page is damaged.
    """
    try:
        is_present, position = _read_levels(header, max_level, body)
        num_present = int(is_present.sum())
        values: list[memoryview | None]
        indices: Sequence[int] | np.ndarray
        if header.is_indexed:
            indices = _read_hybrid(body[position + 1 :], body[position], num_present) if num_present else ()
            values = [dictionary[index] for index in indices]
        else:
            values = _split_plain(body[position:], num_present)
    except (IndexError, struct.error) as error:
        raise ValueError(f"the page at byte {header.start} is damaged") from error
    if num_present == len(is_present):
        return values
    rest = iter(values)
    return [next(rest) if present else None for present in is_present]


def _read_levels(header: PageHeader, max_level: int, body: memoryview) -> tuple[np.ndarray, int]:
    """Returns which values are present, and where the values begin."""
    count = header.num_values
    if header.is_version_2:
        levels, position = body[: header.plain_bytes], header.plain_bytes
    elif max_level:
        (length,) = struct.unpack_from("<I", body)
        levels, position = body[4 : 4 + length], 4 + length
    else:
        levels, position = body[:0], 0
    if not max_level:
        return np.ones(count, dtype=bool), position
    return np.asarray(_read_hybrid(levels, max_level.bit_length(), count)) == max_level, position


def _read_hybrid(content: memoryview, num_bits: int, count: int) -> np.ndarray:
    """Returns `count` numbers of so many bits, encoded as runs and as packed groups of eight."""
    if not num_bits:  # the numbers of a dictionary with one entry
        return np.zeros(count, np.int64)
    if num_bits > _MOST_BITS:
        raise ValueError(f"a page has numbers of {num_bits} bits")
    parts: list[np.ndarray] = []
    found = position = 0
    num_bytes = (num_bits + 7) // 8
    while found < count:
        head = shift = 0
        while True:
            byte = content[position]
            position += 1
            head |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if head & 1:
            packed = np.frombuffer(content[position : position + (head >> 1) * num_bits], np.uint8)
            position += len(packed)
            bits = np.unpackbits(packed, bitorder="little")
            part = bits[: len(bits) // num_bits * num_bits].reshape(-1, num_bits) @ (1 << np.arange(num_bits))
        else:
            value = int.from_bytes(content[position : position + num_bytes], "little")
            position += num_bytes
            part = np.full(min(head >> 1, count - found), value)
        if not len(part):
            raise ValueError("a run of a page is empty")
        parts.append(part)
        found += len(part)
    return np.concatenate(parts)[:count] if parts else np.zeros(0, np.int64)


def _split_plain(body: memoryview, count: int) -> list[memoryview | None]:
    """Returns values that stand one after the other, each with its length before it."""
    values: list[memoryview | None] = []
    position = 0
    for _ in range(count):
        (length,) = struct.unpack_from("<I", body, position)
        value = body[position + 4 : position + 4 + length]
        if len(value) != length:
            raise ValueError("a value ends behind its page")
        values.append(value)
        position += 4 + length
    return values
