"""Segments of one recording share an open file, and what they hold does not depend on what was read before."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.audio import open_files
from data.audio.decoder import open_audio
from data.audio.decoding import load_audio, read_audio, read_segment
from data.audio.open_files import OpenFiles, can_be_kept
from data.common import files as common_files
from data.common.errors import InputError

RATE = 16_000
KINDS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AU", "ULAW"), ("CAF", "ALAC_16"),
]  # fmt: skip


def write_long(path: Path, kind: tuple[str, str] = ("FLAC", "PCM_16"), *, num_channels: int = 1) -> Path:
    """Writes six seconds of a sweep with noise; each channel has a level of its own."""
    times = np.arange(6 * RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(times))
    sweep = 0.3 * np.sin(2 * np.pi * (200 + 150 * times) * times) + noise
    channels = np.stack([sweep * level for level in (1.0, 0.3, 0.1)[:num_channels]], axis=1)
    soundfile.write(path, channels.astype(np.float32), RATE, format=kind[0], subtype=kind[1])
    return path


@pytest.fixture
def num_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were opened so far."""
    opened: list[str] = []

    def count(path, **fields):
        opened.append(str(path))
        return open_audio(path, **fields)

    monkeypatch.setattr(open_files, "open_audio", count)
    return opened


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_segment_is_what_the_whole_recording_has_there_in_any_order(tmp_path, kind, num_channels):
    if kind[1] in ("GSM610", "IMA_ADPCM") and num_channels > 1:
        pytest.skip("these encoders write one channel")
    path = write_long(tmp_path / "long", kind, num_channels=num_channels)
    whole, _ = read_audio(path)
    files = OpenFiles()
    starts = np.random.default_rng(1).integers(0, len(whole) - 9_000, 10).tolist()
    for start in [*starts, *sorted(starts), *starts[::-1]]:
        segment, rate = read_segment(path, start=start, num_samples=8_000, files=files)
        assert rate == RATE
        assert np.array_equal(segment, whole[start : start + 8_000])


def test_many_segments_of_a_file_open_it_once(tmp_path, num_opened):
    path, files = write_long(tmp_path / "long.flac"), OpenFiles()
    for start in range(0, 40_000, 2_000):
        load_audio(path, start=start, num_samples=2_000, files=files)
    assert num_opened == [str(path)]


def test_ogg_is_opened_for_each_segment_because_its_samples_depend_on_where_the_decoder_was(tmp_path, num_opened):
    path, files = write_long(tmp_path / "long.ogg", ("OGG", "VORBIS")), OpenFiles()
    for start in (0, 30_000, 10_000):
        load_audio(path, start=start, num_samples=2_000, files=files)
    assert len(num_opened) == 3


def test_bytes_in_memory_are_not_kept(tmp_path):
    path = write_long(tmp_path / "long.flac")
    with open_audio(path, content=path.read_bytes()) as file:
        assert not can_be_kept(file)
    with open_audio(path) as file:
        assert can_be_kept(file)


def test_files_read_longest_ago_are_closed(tmp_path, num_opened):
    paths = [write_long(tmp_path / f"{number}.flac") for number in range(3)]
    files = OpenFiles(most=2)
    for number in (0, 1, 0, 2, 0, 1):
        load_audio(paths[number], start=0, num_samples=100, files=files)
    assert [Path(path).stem for path in num_opened] == ["0", "1", "2", "1"]


def test_a_pool_leaves_most_of_the_files_that_a_process_may_open(tmp_path, monkeypatch, num_opened):
    monkeypatch.setattr(common_files.resource, "getrlimit", lambda which: (16, 16))
    paths, files = [write_long(tmp_path / f"{number}.flac") for number in range(3)], OpenFiles()
    for number in (0, 1, 0, 1, 2, 0):
        load_audio(paths[number], start=0, num_samples=100, files=files)
    assert [Path(path).stem for path in num_opened] == ["0", "1", "2", "0"]


def test_threads_read_one_file_at_the_same_time(tmp_path):
    path, files = write_long(tmp_path / "long.flac"), OpenFiles()
    whole, _ = read_audio(path)
    starts = [997 * number % 80_000 for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda start: read_segment(path, start=start, num_samples=5_000, files=files)[0], starts)
    for start, segment in zip(starts, found, strict=True):
        assert np.array_equal(segment, whole[start : start + 5_000])


def test_a_file_that_fails_is_one_line_and_is_opened_again(tmp_path, num_opened):
    path, files = write_long(tmp_path / "long.flac"), OpenFiles()
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(InputError, match=r"long\.flac"):
        load_audio(path, start=80_000, num_samples=5_000, files=files)
    path.write_bytes(sound)
    num_before = len(num_opened)
    load_audio(path, start=80_000, num_samples=5_000, files=files)
    assert len(num_opened) == num_before + 1


def test_a_damaged_member_of_an_archive_is_not_called_absent(tmp_path):
    content = bytearray(write_long(tmp_path / "long.flac").read_bytes())
    content[len(content) // 2 :] = b"\x55" * (len(content) - len(content) // 2)
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot decode audio file .*s\.tar#bytes=0\+\d+ \(") as caught:
        read_segment(f"{tmp_path}/s.tar#bytes=0+{len(content)}", start=70_000, num_samples=4_000)
    assert caught.value.code != "missing_audio"


def test_a_segment_behind_a_url_is_sought_not_fetched_whole(tmp_path, monkeypatch):
    path = write_long(tmp_path / "long.flac")
    storage.write_bytes("ram://open_files/long.flac", path.read_bytes())
    whole, _ = read_audio(path)

    def refuse(url):
        raise AssertionError(f"{url} was fetched")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    segment, _ = read_segment("ram://open_files/long.flac", start=50_000, num_samples=4_000)
    assert np.array_equal(segment, whole[50_000:54_000])


@pytest.mark.parametrize("start", [None, 16_000])
def test_one_channel_is_heard_alone(tmp_path, start):
    path = write_long(tmp_path / "two.wav", ("WAV", "PCM_16"), num_channels=2)
    whole, _ = read_audio(path)
    begin, count = (0, len(whole)) if start is None else (start, 4_000)
    for channel in (0, 1):
        heard = load_audio(path, start=start, num_samples=count, channel=channel)
        assert np.array_equal(heard, whole[begin : begin + count, channel])
    with pytest.raises(InputError, match=r"two\.wav has 2 channel\(s\), wanted channel 2, counted from 0"):
        load_audio(path, start=start, num_samples=count, channel=2)


def test_a_segment_does_not_walk_an_ogg_file_from_end_to_end(tmp_path):
    path = write_long(tmp_path / "long.ogg", ("OGG", "VORBIS"))
    content = path.read_bytes()
    # Damage near the end, which only a walk meets.
    path.write_bytes(content[:-20])
    with pytest.raises(InputError, match="ends early"):
        read_audio(path)
    segment, _ = read_segment(path, start=16_000, num_samples=1_000)
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0][16_000:17_000]
    assert np.array_equal(segment[:, 0], expected)
