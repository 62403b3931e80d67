"""Opening by content, bounds, pipes, and decoding in blocks."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.audio import decoder
from data.audio.decoder import decode_blocks, open_audio
from data.audio.decoding import load_audio, read_audio, read_header
from data.audio.streaming import stream_audio
from data.common.errors import InputError

SOUND = (0.3 * np.sin(np.arange(16_000) * 0.1)).astype(np.float32)


def encode(format: str, subtype: str | None = None, *, sound: np.ndarray = SOUND, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def stream(path: str | os.PathLike[str]) -> np.ndarray:
    return np.concatenate(list(stream_audio(path)))


def every_reader(path: Path) -> list[str]:
    """What each way to read a file says; the same for the file's bytes and behind a URL."""
    content = path.read_bytes()
    # A new name each time: this file system does not shorten a file that is written again.
    url = f"ram://decoder/{zlib.crc32(content)}/{path.name}"
    storage.write_bytes(url, content)
    found = []
    for read in (
        lambda: load_audio(path),
        lambda: stream(path),
        lambda: load_audio(path.name, content=content),
        lambda: load_audio(url),
    ):
        with pytest.raises(InputError) as caught:
            read()
        assert "\n" not in str(caught.value)
        found.append(str(caught.value))
    return found


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ULAW", "PCM_U8", "NMS_ADPCM_16"])
def test_telephone_wavs_are_read_by_every_reader(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode("WAV", subtype, rate=8_000))
    num_samples, rate = read_header(path)
    assert rate == 8_000 and 16_000 <= num_samples < 16_400
    channels, _ = read_audio(path)
    assert channels.shape == (num_samples, 1)
    assert np.corrcoef(channels[:16_000, 0], SOUND)[0, 1] > 0.9
    np.testing.assert_allclose(stream(path), load_audio(path), atol=2e-6)


def wav_around_mp3(num_samples: int) -> bytes:
    mp3 = encode("MP3", sound=np.tile(SOUND, 2))
    # The layout of ffmpeg: a format of 30 bytes, tag 0x55, and the number of samples.
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 4_000, 1, 0, 12, 1, 2, 144, 1, 0)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, num_samples)
    chunks += b"data" + struct.pack("<I", len(mp3)) + mp3 + b"\0" * (len(mp3) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_mp3_in_a_wav_has_the_slack_of_mp3(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_around_mp3(32_000))
    num_samples, rate = read_header(path)
    assert rate == 16_000 and abs(num_samples - 32_000) < decoder.MP3_SLACK_SAMPLES
    assert len(load_audio(path)) == len(stream(path)) == num_samples


def test_a_name_decides_nothing(tmp_path: Path) -> None:
    for name in ("a.raw", "a.mp3", "a.vox", "a.au", "noname"):
        (tmp_path / name).write_bytes(encode("WAV"))
        assert len(load_audio(tmp_path / name)) == 16_000


@pytest.mark.parametrize("name", ["a.raw", "a.pcm", "a.sln", "a.au", "a.snd", "a.wav"])
def test_samples_without_a_header_are_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes((SOUND * 32767).astype("<i2").tobytes())
    for message in every_reader(path):
        assert name in message and "convert it" in message


@pytest.mark.parametrize("name", ["memo.m4a", "renamed.mp3", "renamed.wav"])
def test_an_mp4_is_told_by_its_content_with_the_command_that_converts_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\2\0isomiso2" + bytes(2000))
    for message in every_reader(path):
        assert "is MP4 (M4A, AAC, video)" in message
        assert f"ffmpeg -i {message.split(' is MP4')[0]} " in message and message.endswith(".flac")


def test_apples_own_files_are_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "._a.wav"
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    for message in every_reader(path):
        assert "AppleDouble" in message and "ffmpeg" not in message


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for read in (read_header, load_audio, stream, storage.read_bytes, storage.open_binary):
        with pytest.raises((InputError, OSError), match="not a file"):
            read(tmp_path / "a.wav")
    with pytest.raises(InputError, match="/dev/null is not a file"):
        read_header("/dev/null")


def test_a_path_that_no_file_can_have_is_named() -> None:
    for path in ("a\0b.wav", "x" * 5000, "nosuch://bucket/a.wav"):
        for read in (read_header, load_audio):
            with pytest.raises(InputError, match="check the path"):
                read(path)


def test_rates_and_channels_that_no_recording_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for rate in (1, 3_999, 384_001):
        path.write_bytes(encode("WAV", rate=rate))
        for message in every_reader(path):
            assert f"{rate} Hz" in message and "4000 to 384000 Hz" in message
    for rate in (4_000, 384_000):
        path.write_bytes(encode("WAV", rate=rate))
        assert read_header(path) == (16_000, rate)
    path.write_bytes(encode("WAV", sound=np.zeros((100, 65))))
    for message in every_reader(path):
        assert "65 channel(s)" in message
    path.write_bytes(encode("WAV", sound=np.ones((100, 64)) * 0.25))
    np.testing.assert_allclose(load_audio(path), 0.25, atol=1e-4)


def test_a_small_file_of_many_channels_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    # 255 channels of silence: a few bytes a packet, hundreds of megabytes once decoded.
    with soundfile.SoundFile(path, "w", 48_000, 255, format="OGG", subtype="VORBIS") as file:
        for _ in range(10):
            file.write(np.zeros((4_800, 255), np.float32))
    tracemalloc.start()
    for message in every_reader(path):
        assert "at most 64 channels" in message
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("bit", [0, 15, 17, 18, 35])
def test_a_flipped_bit_in_a_flac_length_is_one_line_and_no_memory(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "a.flac"
    content = bytearray(encode("FLAC", sound=np.random.default_rng(0).normal(0, 0.1, 28_960)))
    content[18:26] = (int.from_bytes(content[18:26], "big") ^ 1 << bit).to_bytes(8, "big")
    path.write_bytes(content)
    tracemalloc.start()
    for message in every_reader(path):
        assert "a.flac" in message
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "W64", "RF64"])
def test_a_download_that_broke_off_is_refused_by_every_reader(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format.lower()}"
    content = encode(format, "PCM_16")
    path.write_bytes(content[: len(content) // 2])
    assert all("ends early" in message for message in every_reader(path))
    with pytest.raises(InputError, match="ends early"):
        read_header(path)


def test_a_second_recording_in_a_file_is_refused_by_every_reader(tmp_path: Path) -> None:
    for format, subtype in [("MP3", None), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", None), ("WAV", None)]:
        path = tmp_path / "two"
        path.write_bytes(encode(format, subtype) * 2)
        assert all("holds more audio" in message for message in every_reader(path))


def test_an_ogg_that_ends_between_pages_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = encode("OGG", "OPUS", sound=np.tile(SOUND, 6))
    path = tmp_path / "a.ogg"
    path.write_bytes(content[: content.rindex(b"OggS")])
    assert read_header(path)[0] == len(load_audio(path)) > 16_000
    assert caplog.text.count("has no end-of-stream mark") == 1  # at the header, not at each epoch


def test_blocks_are_the_whole_and_as_large_as_asked_for(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (5_000, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.flac", sound, 16_000, subtype="PCM_24")
    with open_audio(tmp_path / "a.flac") as file:
        blocks = list(decode_blocks("a.flac", file, block_samples=2_000))
    assert [len(block) for block in blocks] == [2_000, 2_000, 1_000]
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(tmp_path / "a.flac")[0])


def test_what_is_too_long_to_be_held_is_refused_and_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.audio.decoding.MAX_VALUES", 15_999)
    path = tmp_path / "a.flac"
    path.write_bytes(encode("FLAC"))
    with pytest.raises(InputError, match="cut it into utterances"):
        load_audio(path)
    assert len(stream(path)) == 16_000


def test_no_callback_prints_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    content = encode("CAF", "ALAC_16")
    for cut in range(100, len(content), 997):
        with pytest.raises(InputError):
            load_audio("a.caf", content=content[:cut])
    assert "Traceback" not in capfd.readouterr().err
