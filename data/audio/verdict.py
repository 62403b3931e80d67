"""Helpers that the checks of all audio containers share."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

# First bytes of a second recording after the end of the first.
_MAGICS = (
    b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"fLaC", b"OggS", b"caff", b"riff", b"NIST_1A", b"Creative", b"2BIT"
)  # fmt: skip
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", bytes(8))
MORE = "holds more audio than its header says"
MORE_ADVICE = "join it again, for example by converting it with ffmpeg"


class Verdict(NamedTuple):
    """Outcome of the check of a container.

    Attributes:
        fault: Part of a message after the name of the file; "" if nothing is wrong.
        code: Machine-readable fault type, as in `InputError`.
        is_unended: Whether an Ogg stream stops between two pages, which a killed recorder causes and some encoders
            always do; worth a warning.
    """

    fault: str = ""
    code: str = ""
    is_unended: bool = False


WHOLE = Verdict()


def skip_id3(file: BinaryIO) -> int:
    """Returns the offset behind the ID3v2 tags at the beginning."""
    offset = 0
    while (tag := read_at(file, offset, 10))[:3] == b"ID3" and len(tag) == 10:
        # The size is four times seven bits, without these ten bytes and a footer.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
        offset += 10 + size + (10 if tag[5] & 0x10 else 0)
    return offset


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Returns up to `length` bytes from an offset; none for an impossible offset, which damaged sizes add up to."""
    if not 0 <= offset < 2**62:
        return b""
    file.seek(offset)
    return file.read(length)


def check_span(file: BinaryIO, start: int, size: int, num_bytes: int, *, rest: int = -1) -> Verdict:
    """Checks that the file holds all bytes of the audio and no second recording after them.

    Args:
        file: Content of the file.
        start: First byte of the audio.
        size: Number of bytes of the audio by the container.
        num_bytes: Size of the file.
        rest: End of the last known part of the container; -1 for the end of the audio.
    """
    end = start + size
    if end > num_bytes:
        return Verdict(f"ends early: {max(0, num_bytes - start)} of {size} bytes of audio; fetch or make it again")
    rest = end if rest < 0 else rest
    if rest < num_bytes:
        behind = read_at(file, rest, 8)
        # A 32-bit counter overflowed, or a recorder was killed before it wrote the length.
        is_long = num_bytes - rest > max(size, 65536) and not behind.startswith(_TAGS)
        if behind.startswith(_MAGICS) or is_long:
            return Verdict(f"{MORE}; {MORE_ADVICE}")
    return WHOLE
