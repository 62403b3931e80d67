"""Containers by their first bytes."""

from __future__ import annotations

import io
import shlex

import numpy as np
import pytest
import soundfile

from common.audio_kinds import conversion_command, identify


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("WAV", "WAV"), ("RF64", "WAV"), ("W64", "W64"), ("AIFF", "AIFF"), ("AU", "AU"), ("CAF", "CAF"),
        ("FLAC", "FLAC"), ("OGG", "Ogg"), ("MP3", "MP3"), ("NIST", "NIST SPHERE"), ("VOC", "VOC"),
    ],
)  # fmt: skip
def test_what_libsndfile_writes_is_known_and_readable(format: str, name: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(16000) * 0.1) * 0.1, 16000, format=format)
    kind = identify(buffer.getvalue()[:4096])
    assert kind is not None and kind.name == name and kind.is_readable


@pytest.mark.parametrize(
    ("head", "name", "is_audio"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4 (M4A, AAC, video)", True),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0", "WebM or Matroska", True),
        (b"#!AMR\n", "AMR", True),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc", "AAC (ADTS)", True),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI video", True),
        (b"OggS" + bytes(24) + b"Speex   1.2", "Ogg Speex", True),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "a file of macOS's own (AppleDouble)", False),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", False),
    ],
)
def test_what_is_not_read_has_a_name(head: bytes, name: str, is_audio: bool) -> None:
    kind = identify(head)
    assert kind is not None and (kind.name, kind.is_audio, kind.is_readable) == (name, is_audio, False)


def test_mpeg_frames_are_not_taken_for_aac() -> None:
    kind = identify(b"\xff\xfb\x90\x64")
    assert kind is not None and kind.name == "MP3"


@pytest.mark.parametrize("head", [b"", b"R", b"RIFF", b"text of a transcript", bytes(200), b"\xff\xff\xff\xff"])
def test_the_rest_is_unknown(head: bytes) -> None:
    assert identify(head) is None


def test_the_command_survives_a_shell() -> None:
    assert shlex.split(conversion_command("my talk's.m4a")) == ["ffmpeg", "-i", "my talk's.m4a", "my talk's.flac"]
