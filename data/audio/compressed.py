"""Checks that Ogg, FLAC and MP3 files hold the audio that their headers promise."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from data.audio.verdict import MORE, MORE_ADVICE, WHOLE, Verdict, read_at

# The magic with the header of the next block, eight bytes that do not occur by chance.
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_FLAC_TAIL = 2**17  # bytes at the end that hold the last frame
_UTF8_STARTS = ((0x80, 0x00), (0xE0, 0xC0), (0xF0, 0xE0), (0xF8, 0xF0), (0xFC, 0xF8), (0xFE, 0xFC), (0xFF, 0xFE))
MP3_INFO_FRAMES = (b"Xing", b"Info", b"VBRI")
# MPEG audio: kbit/s by (is version 1, layer), and the sample rates of version 1.
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = (44100, 48000, 32000)
_RATE_SHIFTS = {3: 0, 2: 1, 0: 2}  # by the version's code: MPEG 1, 2 and 2.5


def check_ogg(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """Walks the pages; refuses a chain of streams, of which libsndfile reads only the first."""
    position, has_data, is_ended = start, False, False
    while position < num_bytes:
        page = read_at(file, position, 27 + 255)
        if not page.startswith(b"OggS") and not b"OggS".startswith(page[:4]):
            # A tag, or a gap in the stream that the decoder reports.
            return Verdict(is_unended=not is_ended)
        num_segments = page[26] if len(page) > 26 else 0
        length = 27 + num_segments + sum(page[27 : 27 + num_segments])
        if len(page) < 27 + num_segments or position + length > num_bytes:
            return Verdict("ends early, in the middle of an Ogg page; fetch or make it again")
        if page[5] & 2:
            if has_data:
                return Verdict(f"{MORE} (one Ogg stream follows another); {MORE_ADVICE}")
        else:
            has_data = True
        is_ended = bool(page[5] & 4)
        position += length
    return Verdict(is_unended=not is_ended)


def check_flac(file: BinaryIO, start: int, num_bytes: int, *, is_decoded: bool) -> Verdict:
    """Checks the length against the size of the file, which one flipped bit can make 743 GiB; refuses more streams."""
    info = read_at(file, start + 8, 18)
    if len(info) < 18:
        return WHOLE
    max_block, min_frame = struct.unpack(">H", info[2:4])[0], int.from_bytes(info[4:7], "big")
    bits = int.from_bytes(info[10:18], "big")
    num_channels, sample_bits, num_samples = (bits >> 41 & 7) + 1, (bits >> 36 & 31) + 1, bits & (2**36 - 1)
    # A frame has a header, checksums and at least one constant per channel; the encoder may promise more.
    frame_bytes = max(min_frame, 8 + num_channels * (1 + sample_bits // 8))
    limit = (num_bytes // frame_bytes + 1) * max(max_block, 16)
    if num_samples > limit:
        return Verdict(
            f"ends early or is damaged: its header promises {num_samples} samples, {num_bytes} bytes hold at most "
            f"{limit}; fetch or make it again"
        )
    if not is_decoded:
        return WHOLE
    content = read_at(file, start, num_bytes - start)
    if _FLAC_START.search(content, 4):
        return Verdict(f"{MORE} (one FLAC stream follows another); {MORE_ADVICE}")
    if 0 < num_samples < _flac_end(content[-_FLAC_TAIL:], max_block, num_samples):
        return Verdict(f"{MORE}; {MORE_ADVICE}")
    return WHOLE


def _flac_end(tail: bytes, max_block: int, num_samples: int) -> int:
    """Returns the samples up to the end of the last frame by the frame's number, or 0 if none is found.

    Args:
        tail: End of the file.
        max_block: Samples of a frame; the last one may have fewer.
        num_samples: Number of samples by the header.
    """
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        end = _flac_frame_end(tail[position : position + 16], max_block)
        if end is None:
            continue
        # Random bytes match a header's checksum in one of some thousand files, so check that of the frame, too.
        if end <= num_samples or _crc(tail[position:], bits=16, polynomial=0x8005) == 0:
            return end
    return 0


def _flac_frame_end(head: bytes, max_block: int) -> int | None:
    """Returns the samples up to the end of the frame with the header `head`, or None if it is not a header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or _has_reserved_code(head):
        return None
    block_code, rate_code = head[2] >> 4, head[2] & 15
    # The number of the frame or of its first sample is coded like a UTF-8 character.
    num_more = next((n for n, (mask, mark) in enumerate(_UTF8_STARTS) if head[4] & mask == mark), -1)
    if num_more < 0:
        return None
    at = 5 + num_more
    size_bytes = {6: 1, 7: 2}.get(block_code, 0)
    length = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= length or _crc(head[: length + 1], bits=8, polynomial=0x07):
        return None
    number = _coded_number(head[4], head[5:at])
    first = number if head[1] & 1 else number * max_block
    return first + _block_samples(block_code, head[at : at + size_bytes])


def _coded_number(start: int, more: bytes) -> int:
    """Decodes a number that is coded like a UTF-8 character, from its first byte and the bytes behind it."""
    number = start & (0xFF >> (len(more) + 2) if more else 0x7F)
    for byte in more:
        number = number << 6 | byte & 0x3F
    return number


def _has_reserved_code(head: bytes) -> bool:
    """Returns whether a FLAC frame header has a code that no encoder writes."""
    block_code, rate_code, channel_code = head[2] >> 4, head[2] & 15, head[3] >> 4
    return block_code == 0 or rate_code == 15 or channel_code > 10 or bool(head[3] & 1)


def _block_samples(code: int, written: bytes) -> int:
    """Returns the samples of a FLAC frame by its block code, or as written behind the header."""
    if written:
        return int.from_bytes(written, "big") + 1
    if code == 1:
        return 192
    return 576 << (code - 2) if code < 6 else 256 << (code - 8)


def _crc(content: bytes, *, bits: int, polynomial: int) -> int:
    """Returns the CRC of the bytes, which is 0 if they end with their checksum."""
    top, remainder = 1 << bits, 0
    for byte in content:
        remainder ^= byte << (bits - 8)
        for _ in range(8):
            remainder <<= 1
            if remainder & top:
                remainder ^= top | polynomial
    return remainder


def mp3_header(head: bytes) -> tuple[tuple[int, int, int], int] | None:
    """Reads the header of an MPEG audio frame.

    Args:
        head: The four bytes of the header.

    Returns:
        ((version, layer, rate in Hz), bytes of the frame), or None if this is not a header.
    """
    if len(head) < 4 or int.from_bytes(head[:2], "big") < 0xFFE0:  # eleven bits of sync
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or kbits_index in (0, 15) or rate_index == 3:
        return None
    is_first = version == 3
    rate = _MPEG_RATES[rate_index] >> _RATE_SHIFTS[version]
    kbits = _KBITS[is_first, layer][kbits_index]
    if layer == 1:
        return (version, layer, rate), (12_000 * kbits // rate + padding) * 4
    num_samples = 576 if layer == 3 and not is_first else 1152
    return (version, layer, rate), num_samples // 8 * 1000 * kbits // rate + padding


def check_mp3(file: BinaryIO, start: int, num_bytes: int) -> Verdict:
    """Counts the frames if the information frame does not account for all bytes; decoders stop at its count."""
    head = read_at(file, start, 2048)
    at = next((head.find(name) for name in MP3_INFO_FRAMES if name in head), -1)
    header = mp3_header(head[:4])
    if at < 0 or header is None:
        return WHOLE  # the reader refuses a file without a length
    promised_bytes, promised_frames = _promised_mp3(head[at : at + 18])
    # A tag at the end, or two frames, are shorter than this.
    if not promised_frames or 0 <= num_bytes - start - promised_bytes < 512:
        return WHOLE
    num_frames = _count_mp3_frames(read_at(file, start, num_bytes - start), header[0]) - 1
    if num_frames < promised_frames - 1:
        return Verdict(f"ends early: {num_frames} of {promised_frames} frames; fetch or make it again")
    return Verdict(f"{MORE}; {MORE_ADVICE}") if num_frames > promised_frames + 2 else WHOLE


def _promised_mp3(info: bytes) -> tuple[int, int]:
    """Returns the bytes and the frames that an information frame promises, 0 where it does not say."""
    if info.startswith(b"VBRI"):
        num_bytes, num_frames = struct.unpack(">II", info[10:18].ljust(8, b"\0"))
        return num_bytes, num_frames
    flags, *fields = struct.unpack(">III", info[4:16].ljust(12, b"\0"))
    return fields[flags & 1] if flags & 2 else 0, fields[0] if flags & 1 else 0


def _count_mp3_frames(content: bytes, kind: tuple[int, int, int]) -> int:
    """Counts the whole frames of a kind; after other bytes, such as a tag, only runs of at least four frames count."""
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
