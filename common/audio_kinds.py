"""Identifies audio containers, and files that are often mistaken for them, by their first bytes."""

from __future__ import annotations

import importlib.util
import os
import shlex
from typing import NamedTuple

HEAD_BYTES = 4096  # enough for all kinds below
# Endings of what can be read without an extra, the usual ones first.
AUDIO_SUFFIXES = (
    ".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".sph", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"
)  # fmt: skip
READABLE_FORMATS = "WAV, FLAC, Ogg (Opus, Vorbis), MP3, AIFF, AU, CAF, W64, RF64 or NIST SPHERE"


class AudioKind(NamedTuple):
    """Kind of a file by its first bytes.

    Attributes:
        name: Name in messages.
        is_readable: Whether the project can read the container without an extra.
        is_audio: Whether it may contain sound.
        demuxer: Name of the demuxer of the extra media that reads it; "" if none does.
    """

    name: str
    is_readable: bool = True
    is_audio: bool = True
    demuxer: str = ""


_MP3 = AudioKind("MP3")
_WAV = AudioKind("WAV")
_AIFF = AudioKind("AIFF")
_MP4 = AudioKind("MP4 (M4A, AAC, video)", is_readable=False, demuxer="mov")
_STARTS = (
    (b"fLaC", AudioKind("FLAC")),
    (b"OggS", AudioKind("Ogg")),
    (b"ID3", _MP3),
    (b".snd", AudioKind("AU")),
    (b"dns.", AudioKind("AU")),
    (b"caff", AudioKind("CAF")),
    (b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", AudioKind("W64")),
    (b"NIST_1A\n", AudioKind("NIST SPHERE")),
    (b"Creative Voice File\x1a", AudioKind("VOC")),
    (b"2BIT", AudioKind("AVR")),
    (b"ALawSoundFile**", AudioKind("WVE")),
    (b"\x1a\x45\xdf\xa3", AudioKind("WebM or Matroska", is_readable=False, demuxer="matroska")),
    (b"#!AMR", AudioKind("AMR", is_readable=False, demuxer="amr")),
    (b"#!SILK", AudioKind("SILK", is_readable=False)),
    (b"\x02#!SILK", AudioKind("SILK", is_readable=False)),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", AudioKind("WMA (ASF)", is_readable=False, demuxer="asf")),
    (b"ADIF", AudioKind("AAC", is_readable=False)),
    (b"wvpk", AudioKind("WavPack", is_readable=False, demuxer="wv")),
    (b"MAC ", AudioKind("Monkey's Audio", is_readable=False, demuxer="ape")),
    (b"TTA1", AudioKind("True Audio", is_readable=False, demuxer="tta")),
    (b"MPCK", AudioKind("Musepack", is_readable=False, demuxer="mpc8")),
    (b"DSD ", AudioKind("DSD", is_readable=False)),
    (b"FRM8", AudioKind("DSD", is_readable=False)),
    (b".RMF", AudioKind("RealMedia", is_readable=False, demuxer="rm")),
    (b"FLV\x01", AudioKind("Flash video", is_readable=False, demuxer="flv")),
    (b"\x00\x00\x01\xba", AudioKind("MPEG video", is_readable=False, demuxer="mpeg")),
    (b"\x00\x05\x16\x07", AudioKind("a file of macOS's own (AppleDouble)", is_readable=False, is_audio=False)),
    (b"version https://git-lfs", AudioKind("a Git LFS pointer", is_readable=False, is_audio=False)),
    (b"PK\x03\x04", AudioKind("a ZIP archive", is_readable=False, is_audio=False)),
    (b"\x1f\x8b", AudioKind("gzip data", is_readable=False, is_audio=False)),
    (b"<!DOCTYPE", AudioKind("a web page", is_readable=False, is_audio=False)),
    (b"<html", AudioKind("a web page", is_readable=False, is_audio=False)),
    (b"MThd", AudioKind("MIDI", is_readable=False, is_audio=False)),
)
_RIFF_FORMS = {b"WAVE": _WAV, b"AVI ": AudioKind("AVI video", is_readable=False, demuxer="avi")}
_FORM_TYPES = {
    b"AIFF": _AIFF,
    b"AIFC": _AIFF,
    b"8SVX": AudioKind("SVX"),
    b"16SV": AudioKind("SVX"),
}
_UNREADABLE_OGG = ((b"Speex   ", "Ogg Speex"), (b"\x80theora", "Ogg Theora"), (b"CELT    ", "Ogg CELT"))


def identify(head: bytes) -> AudioKind | None:
    """Returns the kind of a file from up to `HEAD_BYTES` of its beginning, or None if it is unknown."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _RIFF_FORMS.get(head[8:12])
    if head[:4] == b"FORM":
        return _FORM_TYPES.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _MP4
    for mark, name in _UNREADABLE_OGG if head[:4] == b"OggS" else ():
        if mark in head[:512]:
            return AudioKind(name, is_readable=False, demuxer="" if name == "Ogg CELT" else "ogg")
    if head[:8] == b"NIST_1A\n" and b"shorten" in head[:1024]:
        return AudioKind("NIST SPHERE with shorten compression", is_readable=False)
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    return _identify_frames(head)


def _identify_frames(head: bytes) -> AudioKind | None:
    """Returns the kind of a file without a magic by the sync bits of its first frames, or None if it is unknown."""
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # layer 0, which does not exist in MPEG audio
        return AudioKind("AAC (ADTS)", is_readable=False, demuxer="aac")
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return AudioKind("an MPEG transport stream", is_readable=False, demuxer="mpegts")
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[2] & 0xF0 not in (0x00, 0xF0):
        return _MP3
    return None


def can_read(kind: AudioKind | None) -> bool:
    """Returns whether a file of a kind can be read, here and now."""
    return kind is not None and (kind.is_readable or (bool(kind.demuxer) and has_media_extra()))


def has_media_extra() -> bool:
    """Returns whether the extra media is installed, without importing it."""
    return importlib.util.find_spec("av") is not None


def conversion_command(path: str | os.PathLike[str]) -> str:
    """Returns the command that converts an unreadable file to FLAC."""
    source = os.fspath(path)
    return f"ffmpeg -i {shlex.quote(source)} {shlex.quote(os.path.splitext(source)[0] + '.flac')}"
