"""Promises of containers against what the file holds."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from data.audio.containers import check_container

SOUND = np.random.default_rng(0).normal(0.0, 0.1, 28_960).clip(-1, 1)
SIZED = [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AU", "PCM_16"), ("AU", "ULAW"), ("W64", "PCM_16"), ("RF64", "PCM_24"),
    ("CAF", "PCM_16"), ("NIST", "PCM_16"), ("SVX", "PCM_16"), ("AVR", "PCM_16"),
]  # fmt: skip


def encode(format: str, subtype: str | None = None, *, sound: np.ndarray = SOUND) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 16_000, format=format, subtype=subtype)
    return buffer.getvalue()


def fault(content: bytes) -> str:
    return check_container(io.BytesIO(content), len(content)).fault


@pytest.mark.parametrize(("format", "subtype"), SIZED)
def test_a_cut_anywhere_in_the_audio_is_found(format: str, subtype: str) -> None:
    content = encode(format, subtype)
    assert fault(content) == ""
    # A CAF ends in chunks of its own behind the audio, and GSM in a byte that pads it.
    last = len(content) - (4200 if format == "CAF" else 2)
    for num_bytes in np.linspace(len(content) - len(content) // 2, last, 12).astype(int):
        assert fault(content[:num_bytes]).startswith("ends early"), num_bytes


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36])
@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU"])
def test_sizes_of_streams_are_no_promise(format: str, size: int) -> None:
    content = bytearray(encode(format, "PCM_16"))
    order = "<" if format == "WAV" else ">"
    place = 8 if format == "AU" else content.index(b"data" if format == "WAV" else b"SSND") + 4
    content[place : place + 4] = struct.pack(f"{order}I", size)
    if format != "AU":
        content[4:8] = struct.pack(f"{order}I", min(size + 36, 0xFFFFFFFF))
    for num_bytes in (len(content), len(content) // 2):
        assert fault(bytes(content[:num_bytes])) == ""


def test_a_wav_that_says_it_is_empty_is_empty_whatever_follows() -> None:
    listing = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"data" + bytes(4)
    content = b"RIFF" + struct.pack("<I", len(head) + len(listing)) + head + listing
    verdict = check_container(io.BytesIO(content), len(content))
    assert verdict.fault.startswith("has no samples") and verdict.code == "empty_audio"


def test_what_follows_the_audio_may_be_cut() -> None:
    content = encode("WAV", "PCM_16") + b"LIST" + struct.pack("<I", 100) + bytes(100)
    content = b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:]
    assert fault(content) == fault(content[:-50]) == ""


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "W64", "CAF", "NIST", "FLAC", "OGG", "MP3"])
def test_a_second_recording_behind_the_first_is_found(format: str) -> None:
    content = encode(format)
    assert fault(content) == ""
    assert fault(content + content).startswith("holds more audio")
    assert fault(content + b"TAG" + bytes(125)) == ""


def test_a_second_opus_stream_is_found() -> None:
    content = encode("OGG", "OPUS")
    assert fault(content) == "" and fault(content * 2).startswith("holds more audio")


def test_mp3_frames_behind_a_tag_in_the_middle_are_found() -> None:
    content = encode("MP3")
    tag = b"ID3\x04\0\0" + bytes([0, 0, 20, 0]) + bytes(20 * 128)
    assert fault(tag + content) == ""
    assert fault(content + tag + content).startswith("holds more audio")
    assert fault(content + tag + content[len(content) // 2 :]).startswith("holds more audio")


def test_a_counter_that_ran_over_is_found() -> None:
    content = bytearray(encode("WAV", "PCM_16", sound=np.tile(SOUND, 4)))
    content[4:8], content[40:44] = struct.pack("<I", 2036), struct.pack("<I", 2000)
    assert fault(bytes(content)).startswith("holds more audio")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_cut_in_a_page_is_refused_and_between_pages_doubted(subtype: str) -> None:
    content = encode("OGG", subtype, sound=np.tile(SOUND, 4))
    pages = [index for index in range(len(content)) if content[index : index + 4] == b"OggS"]
    assert len(pages) > 3
    for cut in (pages[-1] + 2, pages[-1] + 20, pages[-1] + 60, pages[2] + 100):
        assert fault(content[:cut]).startswith("ends early"), cut
    assert check_container(io.BytesIO(content), len(content)).is_unended is False
    assert check_container(io.BytesIO(content[: pages[-1]]), pages[-1]) == ("", "", True)


def test_an_mp3_cut_by_a_few_frames_is_found() -> None:
    content = encode("MP3")
    for num_bytes in (len(content) // 2, len(content) - 500, len(content) - 700):
        assert fault(content[:num_bytes]).startswith("ends early")


@pytest.mark.parametrize("bit", range(36))
def test_no_bit_of_a_flac_length_can_flip_unseen(bit: int) -> None:
    content = bytearray(encode("FLAC"))
    content[18:26] = (int.from_bytes(content[18:26], "big") ^ 1 << bit).to_bytes(8, "big")
    promised = int.from_bytes(content[18:26], "big") & (2**36 - 1)
    if promised < len(SOUND):
        assert fault(bytes(content)).startswith("holds more audio")
    elif promised > 15 * len(SOUND):
        header = check_container(io.BytesIO(content), len(content), is_decoded=False)
        assert "promises" in header.fault  # before anything is decoded
    else:
        assert fault(bytes(content)) == ""  # the decoder finds it


def test_hours_of_silence_in_flac_are_believed() -> None:
    content = encode("FLAC", sound=np.zeros(3600 * 16_000, np.int16))
    assert len(content) < 300_000
    assert fault(content) == ""


@pytest.mark.parametrize("format", ["WAV", "AIFF", "W64", "RF64", "CAF", "OGG", "MP3", "FLAC", "VOC", "NIST"])
def test_damaged_headers_end_in_a_verdict(format: str) -> None:
    content = encode(format)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content))])
        for place in rng.integers(0, min(len(damaged), 120), 3):
            damaged[place] = rng.integers(256)
        assert isinstance(fault(bytes(damaged)), str)
