"""Compares what an audio container promises in its own fields with what the file holds.

libsndfile shortens a promise that the file does not keep, and never looks behind the end of the first stream, so a
broken download and two files in one would both pass as whole.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, NamedTuple

# What writers put where they cannot know the length yet: 0, the largest number, and what lies near it (0x7FFFF000 of
# sox and espeak, 0xFFFFFFFF less a header).
_STREAMING_32 = ((0x7FFF0000, 0x80001000), (0xFFFF0000, 0x100000000))
_STREAMING_64 = 1 << 60
_MAX_CHUNKS = 4096
_W64_RIFF = b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
# Beginnings of a further recording behind the end of the first.
_MAGICS = (
    b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"fLaC", b"OggS", b"caff", b"riff", b"NIST_1A", b"Creative", b"2BIT"
)  # fmt: skip
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", bytes(8))
_MORE = "holds more audio than its header says"
_MORE_ADVICE = "join it again, for example by converting it with ffmpeg"
# The magic with the header of the block that must follow it: eight bytes that chance does not make.
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_FLAC_TAIL = 2**17  # holds the last frame
_UTF8_STARTS = ((0x80, 0x00), (0xE0, 0xC0), (0xF0, 0xE0), (0xF8, 0xF0), (0xFC, 0xF8), (0xFE, 0xFC), (0xFF, 0xFE))
MP3_INFO_FRAMES = (b"Xing", b"Info", b"VBRI")


class Verdict(NamedTuple):
    """What is wrong with a container.

    Attributes:
        fault: what stands after the file's name in a message; "" where nothing is wrong.
        code: as `InputError`'s.
        is_unended: whether an Ogg stream breaks off between two pages, as a recorder that was killed leaves it and as
            some encoders always do: worth a warning.
    """

    fault: str = ""
    code: str = ""
    is_unended: bool = False


_WHOLE = Verdict()


def check_container(file: BinaryIO, num_bytes: int, *, walks: bool = True, is_decoded: bool = True) -> Verdict:
    """Looks at the container's own fields, without decoding.

    Args:
        file: the content, which can be sought.
        num_bytes: its length.
        walks: whether to go through the pages of Ogg and, where its sizes do not fit, the frames of MP3.
        is_decoded: whether all of it will be read anyway; only then FLAC is searched to its end.
    """
    start = skip_id3(file)
    head = _read(file, start, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return _check_chunks(file, start, num_bytes)
    if head == _W64_RIFF:
        return _check_w64(file, num_bytes)
    if head[:4] in (b".snd", b"dns."):
        offset, size = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:12].ljust(8, b"\0"))
        return _WHOLE if _is_streaming(size) else _check_span(file, offset, size, num_bytes)
    if head[:4] == b"caff":
        return _check_caf(file, num_bytes)
    if head[:8] == b"NIST_1A\n":
        return _check_nist(file, num_bytes)
    if head == b"Creative Voice F":
        return _check_voc(file, num_bytes)
    if head[:4] == b"2BIT":
        return _check_avr(file, num_bytes)
    if head[:4] == b"fLaC":
        return _check_flac(file, start, num_bytes, is_decoded=is_decoded)
    if head[:4] == b"OggS" and walks:
        return _check_ogg(file, start, num_bytes)
    if mp3_header(head[:4]) is not None and walks:
        return _check_mp3(file, start, num_bytes)
    return _WHOLE


def skip_id3(file: BinaryIO) -> int:
    """Returns the offset of what follows the ID3v2 tags at the beginning."""
    offset = 0
    while (tag := _read(file, offset, 10))[:3] == b"ID3" and len(tag) == 10:
        # Its size: four times seven bits, without these ten bytes and without a footer.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
        offset += 10 + size + (10 if tag[5] & 0x10 else 0)
    return offset


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    if not 0 <= offset < 2**62:  # what damaged sizes add up to, and no file system can seek
        return b""
    file.seek(offset)
    return file.read(length)


def _is_streaming(size: int) -> bool:
    return size == 0 or any(low <= size < high for low, high in _STREAMING_32)


def _check_span(file: BinaryIO, start: int, size: int, num_bytes: int, *, rest: int = -1) -> Verdict:
    """Whether the audio's bytes are there, and no second recording follows them.

    Args:
        file: the content.
        start: first byte of the audio.
        size: promised bytes.
        num_bytes: of the file.
        rest: where what the container knows of ends; -1 for the end of the audio.
    """
    end = start + size
    if end > num_bytes:
        return Verdict(f"ends early: {max(0, num_bytes - start)} of {size} bytes of audio; fetch or make it again")
    rest = end if rest < 0 else rest
    if rest < num_bytes:
        behind = _read(file, rest, 8)
        # A counter of 32 bits that ran over, or a recorder that was killed before it wrote the length.
        is_long = num_bytes - rest > max(size, 65536) and not behind.startswith(_TAGS)
        if behind.startswith(_MAGICS) or is_long:
            return Verdict(f"{_MORE}; {_MORE_ADVICE}")
    return _WHOLE


def _check_chunks(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """RIFF, RIFX, RF64 and IFF: chunks of a name, a size and padding to an even length."""
    magic, total_bytes = (head := _read(file, start, 12))[:4], head[4:8].ljust(4, b"\0")
    order = ">" if magic in (b"RIFX", b"FORM") else "<"
    total = struct.unpack(f"{order}I", total_bytes)[0]
    wide: int | None = None
    is_known_end = not _is_streaming(total) and start + 8 + total <= num_bytes + 1
    position = start + 12
    for _ in range(_MAX_CHUNKS):
        chunk = _read(file, position, 8)
        if len(chunk) < 8:
            break
        name, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        if name == b"ds64":
            fields = _read(file, position + 8, 16)
            wide = struct.unpack("<Q", fields[8:16])[0] if len(fields) == 16 else None
        if name in (b"data", b"SSND", b"BODY"):
            if name == b"data" and magic in (b"RF64", b"BW64") and size == 0xFFFFFFFF and wide is not None:
                size = wide
                if size == 0 or size >= _STREAMING_64:
                    return _WHOLE
            elif size == 0 and is_known_end and start + 8 + total >= num_bytes:
                # Not a stream: its length is written, and it says that there is nothing.
                return Verdict("has no samples: remove it or record it again", code="empty_audio")
            elif _is_streaming(size):
                return _WHOLE
            known_end = start + 8 + total + total % 2 if is_known_end else -1
            first = position + 8
            return _check_span(file, first, size, num_bytes, rest=max(known_end, first + size + size % 2))
        position += 8 + size + size % 2
        if position > num_bytes:
            break
    return _WHOLE


def _check_w64(file: BinaryIO, num_bytes: int) -> Verdict:
    position = 40
    for _ in range(_MAX_CHUNKS):
        chunk = _read(file, position, 24)
        if len(chunk) < 24:
            break
        size = struct.unpack("<Q", chunk[16:])[0]
        if chunk[:16] == _W64_DATA:
            if size <= 24 or size >= _STREAMING_64:
                return _WHOLE
            return _check_span(file, position + 24, size - 24, num_bytes, rest=(position + size + 7) // 8 * 8)
        if size < 24:
            break
        position += (size + 7) // 8 * 8
    return _WHOLE


def _check_caf(file: BinaryIO, num_bytes: int) -> Verdict:
    position = 8
    for _ in range(_MAX_CHUNKS):
        chunk = _read(file, position, 12)
        if len(chunk) < 12:
            break
        size = struct.unpack(">q", chunk[4:])[0]
        if chunk[:4] == b"data":
            is_streaming = size <= 4 or size >= _STREAMING_64
            return _WHOLE if is_streaming else _check_span(file, position + 12, size, num_bytes)
        if size < 0:
            break
        position += 12 + size
    return _WHOLE


def _check_nist(file: BinaryIO, num_bytes: int) -> Verdict:
    fields: dict[bytes, bytes] = {}
    lines = _read(file, 0, 4096).split(b"\n")
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
        return _WHOLE
    return _check_span(file, start, size, num_bytes) if size > 0 else _WHOLE


def _check_voc(file: BinaryIO, num_bytes: int) -> Verdict:
    """Creative Voice: blocks of a kind and a size of 24 bits; kinds 1, 2 and 9 are sound, 0 ends."""
    position = struct.unpack("<H", _read(file, 20, 2).ljust(2, b"\0"))[0]
    for _ in range(_MAX_CHUNKS):
        block = _read(file, position, 4)
        if block[:1] == b"\0":
            return _check_span(file, position, 1, num_bytes)
        if len(block) < 4:
            break
        size = int.from_bytes(block[1:4], "little")
        if block[0] in (1, 2, 9) and position + 4 + size > num_bytes + 12:  # some writers count a header twice
            return _check_span(file, position + 4, size, num_bytes)
        position += 4 + size
    return _WHOLE


def _check_avr(file: BinaryIO, num_bytes: int) -> Verdict:
    head = _read(file, 0, 128)
    if len(head) < 128:
        return _WHOLE
    is_stereo, bits = struct.unpack(">HH", head[12:16])
    count = struct.unpack(">I", head[26:30])[0]
    return _check_span(file, 128, count * (2 if is_stereo else 1) * max(1, bits // 8), num_bytes)


def _check_ogg(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """Walks the pages: a stream that begins behind the first data makes a chain, of which one link would be read."""
    position, has_data, is_ended = start, False, False
    while position < num_bytes:
        page = _read(file, position, 27 + 255)
        if not page.startswith(b"OggS") and not b"OggS".startswith(page[:4]):
            # A tag, or a gap in the stream, which the decoder reports.
            return Verdict(is_unended=not is_ended)
        num_segments = page[26] if len(page) > 26 else 0
        length = 27 + num_segments + sum(page[27 : 27 + num_segments])
        if len(page) < 27 + num_segments or position + length > num_bytes:
            return Verdict("ends early, in the middle of an Ogg page; fetch or make it again")
        if page[5] & 2:
            if has_data:
                return Verdict(f"{_MORE} (one Ogg stream follows another); {_MORE_ADVICE}")
        else:
            has_data = True
        is_ended = bool(page[5] & 4)
        position += length
    return Verdict(is_unended=not is_ended)


def _check_flac(file: BinaryIO, start: int, num_bytes: int, *, is_decoded: bool) -> Verdict:
    """Bounds the length by the smallest frames that so many bytes can hold: one flipped bit makes it 743 GiB."""
    info = _read(file, start + 8, 18)
    if len(info) < 18:
        return _WHOLE
    max_block, min_frame = struct.unpack(">H", info[2:4])[0], int.from_bytes(info[4:7], "big")
    bits = int.from_bytes(info[10:18], "big")
    num_channels, sample_bits, num_samples = (bits >> 41 & 7) + 1, (bits >> 36 & 31) + 1, bits & (2**36 - 1)
    # Header, checksums, and of each channel one constant; the encoder's own word where it is more.
    frame_bytes = max(min_frame, 8 + num_channels * (1 + sample_bits // 8))
    limit = (num_bytes // frame_bytes + 1) * max(max_block, 16)
    if num_samples > limit:
        return Verdict(
            f"ends early or is damaged: its header promises {num_samples} samples, {num_bytes} bytes hold at most "
            f"{limit}; fetch or make it again"
        )
    if not is_decoded:
        return _WHOLE
    content = _read(file, start, num_bytes - start)
    if _FLAC_START.search(content, 4):
        return Verdict(f"{_MORE} (one FLAC stream follows another); {_MORE_ADVICE}")
    if 0 < num_samples < _flac_end(content[-_FLAC_TAIL:], max_block, num_samples):
        return Verdict(f"{_MORE}; {_MORE_ADVICE}")
    return _WHOLE


def _flac_end(tail: bytes, max_block: int, num_samples: int) -> int:
    """Samples up to the end of the last frame, by the frame's own number; 0 where `num_samples` cannot be refuted.

    Args:
        tail: end of the file.
        max_block: samples of a frame, of the last one at most.
        num_samples: what the file promises.
    """
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        end = _flac_frame_end(tail[position : position + 16], max_block)
        if end is None:
            continue
        # Chance makes a header's checksum once in some thousand files: that of the frame decides.
        if end <= num_samples or _crc(tail[position:], bits=16, polynomial=0x8005) == 0:
            return end
    return 0


def _flac_frame_end(head: bytes, max_block: int) -> int | None:
    """Samples up to the end of the frame whose header is `head`; None if this is no header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    block_code, rate_code = head[2] >> 4, head[2] & 15
    # Frame or sample, as UTF-8 writes a character.
    num_more = next((n for n, (mask, mark) in enumerate(_UTF8_STARTS) if head[4] & mask == mark), -1)
    if num_more < 0 or block_code == 0 or rate_code == 15:
        return None
    number = head[4] & (0x7F if num_more == 0 else 0xFF >> (num_more + 2))
    for byte in head[5 : 5 + num_more]:
        number = number << 6 | byte & 0x3F
    at = 5 + num_more
    size_bytes = {6: 1, 7: 2}.get(block_code, 0)
    length = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= length or _crc(head[: length + 1], bits=8, polynomial=0x07):
        return None
    if size_bytes:
        block = int.from_bytes(head[at : at + size_bytes], "big") + 1
    else:
        block = 192 if block_code == 1 else 576 << (block_code - 2) if block_code < 6 else 256 << (block_code - 8)
    return (number if head[1] & 1 else number * max_block) + block


def _crc(content: bytes, *, bits: int, polynomial: int) -> int:
    """Remainder of the bytes, 0 where they end with their own checksum."""
    top, remainder = 1 << bits, 0
    for byte in content:
        remainder ^= byte << (bits - 8)
        for _ in range(8):
            remainder <<= 1
            if remainder & top:
                remainder ^= top | polynomial
    return remainder


# MPEG audio: kbit/s by version (1, else) and layer; samples of a frame; rates of version 1.
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = (44100, 48000, 32000)


def mp3_header(head: bytes) -> tuple[tuple[int, int, int], int] | None:
    """Reads the header of an MPEG audio frame.

    Args:
        head: its four bytes.

    Returns:
        ((version, layer, rate in Hz), bytes of the frame), None if this is no header.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or kbits_index in (0, 15) or rate_index == 3:
        return None
    is_first = version == 3
    rate = _MPEG_RATES[rate_index] >> (0 if is_first else 1 if version == 2 else 2)
    kbits = _KBITS[is_first, layer][kbits_index]
    if layer == 1:
        return (version, layer, rate), (12_000 * kbits // rate + padding) * 4
    num_samples = 576 if layer == 3 and not is_first else 1152
    return (version, layer, rate), num_samples // 8 * 1000 * kbits // rate + padding


def _check_mp3(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """Counts the frames where the information frame does not account for the bytes; decoders stop where it ends."""
    head = _read(file, start, 2048)
    at = next((head.find(name) for name in MP3_INFO_FRAMES if name in head), -1)
    header = mp3_header(head[:4])
    if at < 0 or header is None:
        return _WHOLE  # it does not say how long it is, which the reader refuses
    if head[at : at + 4] == b"VBRI":
        promised_bytes, promised_frames = struct.unpack(">II", head[at + 10 : at + 18].ljust(8, b"\0"))
    else:
        flags, *fields = struct.unpack(">III", head[at + 4 : at + 16].ljust(12, b"\0"))
        promised_frames = fields[0] if flags & 1 else 0
        promised_bytes = fields[flags & 1] if flags & 2 else 0
    # A tag behind it is shorter, and so are two frames.
    if not promised_frames or 0 <= num_bytes - start - promised_bytes < 512:
        return _WHOLE
    num_frames = _count_mp3_frames(_read(file, start, num_bytes - start), header[0]) - 1
    if num_frames < promised_frames - 1:
        return Verdict(f"ends early: {num_frames} of {promised_frames} frames; fetch or make it again")
    return Verdict(f"{_MORE}; {_MORE_ADVICE}") if num_frames > promised_frames + 2 else _WHOLE


def _count_mp3_frames(content: bytes, kind: tuple[int, int, int]) -> int:
    """Number of whole frames of a kind; across what is no frame, a tag in the middle, by at least four in a row."""
    position = num_frames = run = 0
    while position < len(content):
        header = mp3_header(content[position : position + 4])
        if header is not None and header[0] == kind:
            position += header[1]
            run += position <= len(content)
            continue
        num_frames += run if run > 3 or not num_frames else 0
        run = 0
        position = content.find(b"\xff", position + 1)
        if position < 0:
            break
    return num_frames + (run if run > 3 or not num_frames else 0)
