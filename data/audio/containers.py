"""Compares the length that an audio container promises with what the file holds.

libsndfile shortens the length of a truncated file without an error and never reads past the end of the first stream, so
a broken download and two files in one would both pass as whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import BinaryIO

from data.audio.compressed import check_flac, check_mp3, check_ogg, mp3_header
from data.audio.verdict import WHOLE, Verdict, check_span, read_at, skip_id3

# Sizes that writers use while they do not know the length: 0, the largest number and values near it (0x7FFFF000 of sox
# and espeak, 0xFFFFFFFF less a header).
_STREAMING_32 = ((0x7FFF0000, 0x80001000), (0xFFFF0000, 0x100000000))
_STREAMING_64 = 1 << 60
_MAX_CHUNKS = 4096
_W64_RIFF = b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def check_container(file: BinaryIO, num_bytes: int, *, walks: bool = True, is_decoded: bool = True) -> Verdict:
    """Checks the fields of a container, without decoding.

    Args:
        file: Content of the file, seekable.
        num_bytes: Size of the file.
        walks: Whether to walk the pages of Ogg and, if their sizes do not fit, the frames of MP3.
        is_decoded: Whether the whole file will be read anyway; only then FLAC is searched to its end.
    """
    start = skip_id3(file)
    head = read_at(file, start, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return _check_chunks(file, start, num_bytes)
    if head[:4] in (b".snd", b"dns."):
        return _check_au(file, head, num_bytes)
    check = next((check for magic, check in _CHECKS if head.startswith(magic)), None)
    if check is not None:
        return check(file, num_bytes)
    if head[:4] == b"fLaC":
        return check_flac(file, start, num_bytes, is_decoded=is_decoded)
    if not walks:
        return WHOLE
    if head[:4] == b"OggS":
        return check_ogg(file, start, num_bytes)
    if mp3_header(head[:4]) is not None:
        return check_mp3(file, start, num_bytes)
    return WHOLE


def _is_streaming(size: int, *, is_wide: bool = False) -> bool:
    """Returns whether a size, of 64 bits if it is wide, stands for one that the writer did not know."""
    if is_wide:
        return size == 0 or size >= _STREAMING_64
    return size == 0 or any(low <= size < high for low, high in _STREAMING_32)


def _check_chunks(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """Checks RIFF, RIFX, RF64 and IFF: chunks of a name, a size and padding to an even length."""
    head = read_at(file, start, 12)
    order = ">" if head[:4] in (b"RIFX", b"FORM") else "<"
    samples = _find_samples(file, start + 12, num_bytes, order=order, has_ds64=head[:4] in (b"RF64", b"BW64"))
    if samples is None:
        return WHOLE
    first, size, is_wide = samples
    total = struct.unpack(f"{order}I", head[4:8].ljust(4, b"\0"))[0]
    end = start + 8 + total
    is_known_end = not _is_streaming(total) and end <= num_bytes + 1
    if size == 0 and not is_wide and is_known_end and end >= num_bytes:
        # Not a stream, because its length is written, and it is zero.
        return Verdict("has no samples: remove it or record it again", code="empty_audio")
    if _is_streaming(size, is_wide=is_wide):
        return WHOLE
    known_end = end + total % 2 if is_known_end else -1
    return check_span(file, first, size, num_bytes, rest=max(known_end, first + size + size % 2))


def _find_samples(
    file: BinaryIO, position: int, num_bytes: int, *, order: str, has_ds64: bool
) -> tuple[int, int, bool] | None:
    """Finds the chunk of the samples.

    Args:
        file: Content of the file.
        position: Start of the first chunk.
        num_bytes: Size of the file.
        order: Byte order of the sizes, in the form of `struct`.
        has_ds64: Whether a chunk ds64 may hold the size in 64 bits.

    Returns:
        (start of the samples, their size in bytes, whether ds64 gives it), or None if there is no such chunk.
    """
    wide: int | None = None
    for _ in range(_MAX_CHUNKS):
        chunk = read_at(file, position, 8)
        if len(chunk) < 8:
            break
        name, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        if name == b"ds64" and has_ds64:
            wide = _wide_size(read_at(file, position + 8, 16))
        if name == b"data" and size == 0xFFFFFFFF and wide is not None:
            return position + 8, wide, True
        if name in (b"data", b"SSND", b"BODY"):
            return position + 8, size, False
        position += 8 + size + size % 2
        if position > num_bytes:
            break
    return None


def _wide_size(ds64: bytes) -> int | None:
    return int.from_bytes(ds64[8:], "little") if len(ds64) == 16 else None


def _check_au(file: BinaryIO, head: bytes, num_bytes: int) -> Verdict:
    offset, size = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:12].ljust(8, b"\0"))
    return WHOLE if _is_streaming(size) else check_span(file, offset, size, num_bytes)


def _check_w64(file: BinaryIO, num_bytes: int) -> Verdict:
    position = 40
    for _ in range(_MAX_CHUNKS):
        chunk = read_at(file, position, 24)
        if len(chunk) < 24:
            break
        size = struct.unpack("<Q", chunk[16:])[0]
        if chunk[:16] == _W64_DATA:
            if size <= 24 or size >= _STREAMING_64:
                return WHOLE
            return check_span(file, position + 24, size - 24, num_bytes, rest=(position + size + 7) // 8 * 8)
        if size < 24:
            break
        position += (size + 7) // 8 * 8
    return WHOLE


def _check_caf(file: BinaryIO, num_bytes: int) -> Verdict:
    position = 8
    for _ in range(_MAX_CHUNKS):
        chunk = read_at(file, position, 12)
        if len(chunk) < 12:
            break
        size = struct.unpack(">q", chunk[4:])[0]
        if chunk[:4] == b"data":
            is_streaming = size <= 4 or size >= _STREAMING_64
            return WHOLE if is_streaming else check_span(file, position + 12, size, num_bytes)
        if size < 0:
            break
        position += 12 + size
    return WHOLE


def _check_nist(file: BinaryIO, num_bytes: int) -> Verdict:
    fields: dict[bytes, bytes] = {}
    lines = read_at(file, 0, 4096).split(b"\n")
    for line in lines[2:]:
        if line.strip() == b"end_head":
            break
        name, _, value = line.partition(b" ")
        fields[name] = value.partition(b" ")[2].strip()
    try:
        start = int(lines[1])
        count, width = int(fields[b"sample_count"]), int(fields[b"sample_n_bytes"])
        size = count * width * int(fields.get(b"channel_count", b"1"))
    except (KeyError, ValueError, IndexError):
        return WHOLE
    return check_span(file, start, size, num_bytes) if size > 0 else WHOLE


def _check_voc(file: BinaryIO, num_bytes: int) -> Verdict:
    """Checks Creative Voice: blocks of a kind and a 24-bit size; kinds 1, 2 and 9 are sound, 0 is the end."""
    position = struct.unpack("<H", read_at(file, 20, 2).ljust(2, b"\0"))[0]
    for _ in range(_MAX_CHUNKS):
        block = read_at(file, position, 4)
        if block[:1] == b"\0":
            return check_span(file, position, 1, num_bytes)
        if len(block) < 4:
            break
        size = int.from_bytes(block[1:4], "little")
        if block[0] in (1, 2, 9) and position + 4 + size > num_bytes + 12:  # some writers count a header twice
            return check_span(file, position + 4, size, num_bytes)
        position += 4 + size
    return WHOLE


def _check_avr(file: BinaryIO, num_bytes: int) -> Verdict:
    head = read_at(file, 0, 128)
    if len(head) < 128:
        return WHOLE
    is_stereo, bits = struct.unpack(">HH", head[12:16])
    count = struct.unpack(">I", head[26:30])[0]
    return check_span(file, 128, count * (2 if is_stereo else 1) * max(1, bits // 8), num_bytes)


_CHECKS: Sequence[tuple[bytes, Callable[[BinaryIO, int], Verdict]]] = (
    (_W64_RIFF, _check_w64),
    (b"caff", _check_caf),
    (b"NIST_1A\n", _check_nist),
    (b"Creative Voice F", _check_voc),
    (b"2BIT", _check_avr),
)
