"""Pieces of a recording against the whole of it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from data.audio.decoding import load_audio
from data.audio.streaming import duration_samples, stream_audio
from data.common.errors import InputError


def write(path, *, rate=16000, secs=2.0, channels=1):
    samples = np.random.default_rng(0).uniform(-0.7, 0.7, (round(secs * rate), channels))
    soundfile.write(path, samples, rate)
    return path


@pytest.mark.parametrize("rate", [16000, 8000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_pieces_are_the_whole(tmp_path, rate, channels):
    path = write(tmp_path / "a.wav", rate=rate, channels=channels, secs=2.03)
    pieces = list(stream_audio(path, block_secs=0.3))
    assert len(pieces) == 7
    whole = load_audio(path)
    assert duration_samples(path) == len(whole) == sum(map(len, pieces))
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-6)


def test_an_mp3_gives_what_loading_it_gives(tmp_path):
    path = write(tmp_path / "a.mp3", rate=22050, secs=1.3)
    pieces, whole = np.concatenate(list(stream_audio(path, block_secs=0.4))), load_audio(path)
    assert len(pieces) == len(whole)
    # libsndfile's MP3 decoder itself gives slightly other samples where two reads meet.
    difference = np.abs(pieces - whole)
    assert difference.max() < 0.01 and np.mean(difference > 2e-6) < 0.02


def test_one_piece_for_a_short_file(tmp_path):
    path = write(tmp_path / "a.flac", secs=0.5)
    (piece,) = stream_audio(path)
    np.testing.assert_array_equal(piece, load_audio(path))


def test_faults_are_one_line(tmp_path):
    path = write(tmp_path / "a.wav", rate=8000)
    with pytest.raises(InputError, match="8000 Hz, wanted 16000 Hz"):
        next(stream_audio(path, on_rate_mismatch="refuse"))
    with pytest.raises(InputError, match="no audio file"):
        next(stream_audio(tmp_path / "missing.wav"))
    samples = np.zeros(16000, np.float32)
    samples[9000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    pieces = stream_audio(tmp_path / "nan.wav", block_secs=0.5)
    assert len(next(pieces)) == 8000
    with pytest.raises(InputError, match="not finite"):
        next(pieces)


def test_a_file_cut_short_is_found_at_its_end(tmp_path):
    path = write(tmp_path / "a.flac", secs=3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="ends early|cannot be decoded"):
        list(stream_audio(path, block_secs=0.5))


@pytest.mark.parametrize("scale", [1.0, 5.0, 32768.0])
def test_pieces_of_a_float_file_have_the_scale_of_the_whole(tmp_path, scale):
    samples = np.random.default_rng(0).uniform(-1, 1, 48_000)
    samples[:16_000] *= 1e-3  # what comes first does not tell
    soundfile.write(tmp_path / "a.wav", samples * scale, 16_000, subtype="FLOAT")
    pieces = list(stream_audio(tmp_path / "a.wav", block_secs=0.5))
    assert len(pieces) == 6
    np.testing.assert_array_equal(np.concatenate(pieces), load_audio(tmp_path / "a.wav"))
    assert np.abs(pieces[-1]).max() == pytest.approx(5.0 if scale == 5.0 else 1.0, rel=0.01)


def test_pieces_of_channels_that_cancel_are_the_whole(tmp_path):
    left = np.random.default_rng(0).uniform(-0.5, 0.5, 62 * 8_000)
    # In phase at first, against each other later; what is mixed at a time is half a minute.
    right = np.where(np.arange(len(left)) < 31 * 8_000, left, -left)
    soundfile.write(tmp_path / "a.flac", np.stack([left, right], axis=1), 8_000)
    pieces = list(stream_audio(tmp_path / "a.flac", block_secs=7.0))
    np.testing.assert_allclose(np.concatenate(pieces), load_audio(tmp_path / "a.flac"), atol=2e-6)
    assert np.concatenate(pieces)[-16_000:].std() > 0.2
