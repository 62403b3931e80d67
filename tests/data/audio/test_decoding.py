"""Decoding, mix-down, resampling, normalization, broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio import decoding
from data.common.errors import InputError


def tone(num_samples: int, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(num_samples) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("wav", 1e-4), ("ogg", 0.05), ("mp3", 0.05)])
def test_every_format_gives_the_waveform(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path, wave = tmp_path / f"a.{suffix}", tone(24000, 16000)
    soundfile.write(path, wave, 16000)
    loaded = decoding.load_audio(path)
    assert loaded.dtype == np.float32
    assert loaded.shape == (24000,)
    assert decoding.read_header(path) == (24000, 16000)
    # The edges of a lossy file ring.
    np.testing.assert_allclose(loaded[2000:-2000], wave[2000:-2000], atol=tolerance)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled_to_the_same_tone(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate + 1, rate), rate, subtype="FLOAT")
    loaded = decoding.load_audio(path)
    assert loaded.shape == (decoding.resampled_length(rate + 1, rate, 16000),)
    np.testing.assert_allclose(loaded[500:15500], tone(16000, 16000)[500:15500], atol=2e-3)


def test_refuses_another_rate_when_told_to(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(800, 8000), 8000)
    with pytest.raises(InputError, match=r"a\.wav has 8000 Hz, wanted 16000 Hz"):
        decoding.load_audio(tmp_path / "a.wav", on_rate_mismatch="refuse")
    with pytest.raises(ValueError, match="on_rate_mismatch is 'ignore'"):
        decoding.load_audio(tmp_path / "a.wav", on_rate_mismatch="ignore")


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    stereo = np.stack([np.full(400, 0.5), np.full(400, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    np.testing.assert_allclose(decoding.load_audio(tmp_path / "a.wav"), 0.125, atol=1e-6)


# Integers come at the level of their kind, so that utterances joined in a row are alike.
@pytest.mark.parametrize(
    ("scale", "gain"), [(1.0, 1.0), (3.0, 3.0), (2.0**15, 1.0), (2.0**23, 1.0), (2.0**31, 1.0), (1e30, 1e30 / 2**100)]
)
@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "FLOAT"), ("aiff", "FLOAT"), ("wav", "DOUBLE")])
def test_a_float_file_is_heard_at_any_scale(
    tmp_path: Path, suffix: str, subtype: str, scale: float, gain: float
) -> None:
    speech = np.random.default_rng(0).normal(0.0, 0.2, 24_000).clip(-1, 1)
    soundfile.write(tmp_path / f"a.{suffix}", speech * scale, 16_000, subtype=subtype)
    loaded = decoding.load_audio(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(loaded, speech * gain, rtol=1e-6, atol=1e-7)
    normalized = decoding.normalize_waveform(loaded)
    assert np.corrcoef(normalized, speech)[0, 1] > 0.9999
    # What a shard holds of it.
    assert np.corrcoef(decoding.to_int16(loaded), speech)[0, 1] > 0.9999


def test_sixteen_bits_of_what_fits_are_exact_and_of_the_rest_scaled() -> None:
    exact = np.array([-32768, -1, 0, 1, 32767], np.float32) / 32768
    assert decoding.to_int16(exact).tolist() == [-32768, -1, 0, 1, 32767]
    assert decoding.to_int16(np.array([2.0, -1.0, 0.5], np.float32)).tolist() == [32767, -16384, 8192]
    assert decoding.to_int16(np.zeros(0, np.float32)).tolist() == []


@pytest.mark.parametrize("gain", [-1.0, -0.97, -0.7])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_of_channels_that_cancel_the_first_is_heard(tmp_path: Path, gain: float, offset: float) -> None:
    left = np.random.default_rng(0).normal(0.0, 0.1, 24_000)
    soundfile.write(tmp_path / "a.wav", np.stack([left + offset, gain * left + offset], axis=1), 16_000)
    np.testing.assert_allclose(decoding.load_audio(tmp_path / "a.wav"), left + offset, atol=1e-4)


def test_of_channels_that_cancel_a_quiet_one_is_not_taken() -> None:
    left = np.random.default_rng(0).normal(0.0, 0.1, 24_000).astype(np.float32)
    channels = np.stack([left * np.float32(0.01), left, -left], axis=1)
    np.testing.assert_array_equal(decoding.to_mono(channels, 16_000, 16_000), left)
    assert decoding.channels_cancel(channels, 16_000)


def test_ordinary_channels_are_mixed() -> None:
    left, right = np.random.default_rng(0).normal(0.0, 0.1, (2, 24_000)).astype(np.float32)
    for channels in ([left, right], [left, 0 * left], [left, -0.3 * left], [0 * left, 0 * left], [left] * 3):
        block = np.stack(channels, axis=1).astype(np.float32)
        assert not decoding.channels_cancel(block, 16_000)
        np.testing.assert_array_equal(decoding.to_mono(block, 16_000, 16_000), block.mean(axis=1))


def test_each_half_minute_is_mixed_by_itself() -> None:
    left = np.random.default_rng(0).normal(0.0, 0.1, 31 * 16_000).astype(np.float32)
    right = np.where(np.arange(len(left)) < 30 * 16_000, left, -left)
    mono = decoding.to_mono(np.stack([left, right], axis=1), 16_000, 16_000)
    np.testing.assert_allclose(mono, left, atol=1e-7)


def test_values_beyond_full_scale_are_kept(tmp_path: Path) -> None:
    wave = np.array([0.0, 3.0, -3.0, 0.5], np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    assert decoding.load_audio(tmp_path / "a.wav").tolist() == [0.0, 3.0, -3.0, 0.5]


@pytest.mark.parametrize(("num_samples", "rate"), [(1, 44100), (3, 8000), (1, 16000)])
def test_a_few_samples_keep_their_promised_length(tmp_path: Path, num_samples: int, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(num_samples, rate), rate)
    wanted = decoding.resampled_length(num_samples, rate, 16000)
    assert wanted >= 1
    assert decoding.load_audio(tmp_path / "a.wav").shape == (wanted,)


@settings(max_examples=40, deadline=None)
@given(
    num_samples=st.integers(0, 5000),
    from_rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
    to_rate=st.sampled_from([8000, 16000, 17600]),
)
def test_resample_has_exactly_the_length_it_says(num_samples: int, from_rate: int, to_rate: int) -> None:
    resampled = decoding.resample(tone(num_samples, from_rate), from_rate, to_rate)
    assert len(resampled) == decoding.resampled_length(num_samples, from_rate, to_rate)
    assert resampled.dtype == np.float32


def test_resampled_length_rounds_up_in_integers() -> None:
    assert decoding.resampled_length(441, 44100, 16000) == 160
    assert decoding.resampled_length(442, 44100, 16000) == 161
    assert decoding.resampled_length(10**13 + 1, 16000, 8000) == 5 * 10**12 + 1


def test_absent_broken_empty_and_wrong_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "noise.flac").write_bytes(b"not audio at all" * 10)
    (tmp_path / "zero.flac").write_bytes(b"")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for name, reason in [
        ("absent.flac", "no audio file"),
        ("noise.flac", "cannot decode"),
        ("zero.flac", "cannot decode"),
        ("empty.wav", "no samples"),
        (".", "is not a file"),
    ]:
        for read in (decoding.read_header, decoding.load_audio):
            with pytest.raises(InputError, match=reason) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg"])
def test_a_file_cut_in_half_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(48000, 16000), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"a\.{suffix}"):
        decoding.load_audio(path)


def test_flac_with_flipped_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(48000, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot decode"):
        decoding.load_audio(path)


def test_a_float_file_with_nan_is_refused(tmp_path: Path) -> None:
    wave = np.array([0.0, np.nan, 0.1], np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="not finite"):
        decoding.load_audio(tmp_path / "a.wav")


def test_streamed_flac_without_a_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(24000, 16000), 16000)
    content = bytearray(path.read_bytes())
    # STREAMINFO: 36 bits of total samples end at byte 25; zero means unknown.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    for read in (decoding.read_header, decoding.load_audio):
        with pytest.raises(InputError, match="does not say how long it is"):
            read(path)


def test_mp3_without_an_information_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    # Silence, then noise: a variable bit rate, so that a guess from the first frame goes wrong.
    noise = np.random.default_rng(0).normal(0.0, 0.1, 48000) * (np.arange(48000) > 20000)
    soundfile.write(path, noise, 16000)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])
    assert abs(soundfile.info(path).frames - 48000) > 20000  # what the refusal is about
    for read in (decoding.read_header, decoding.load_audio):
        with pytest.raises(InputError, match="does not say how long it is"):
            read(path)


def test_mp3_behind_a_large_tag_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(24000, 16000), 16000)
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, 40, 0]) + bytes(40 * 128)
    path.write_bytes(tag + path.read_bytes())
    assert decoding.read_header(path) == (24000, 16000)
    assert decoding.load_audio(path).shape == (24000,)


def test_normalize_gives_zero_mean_and_unit_variance() -> None:
    wave = (np.random.default_rng(0).normal(0.3, 0.02, 50000)).astype(np.float32)
    normalized = decoding.normalize_waveform(wave)
    assert normalized.dtype == np.float32
    assert abs(float(normalized.mean())) < 1e-4
    assert abs(float(normalized.std()) - 1.0) < 1e-3
    expected = (wave - wave.astype(np.float64).mean()) / np.sqrt(wave.astype(np.float64).var() + 1e-7)
    np.testing.assert_allclose(normalized, expected, atol=1e-4)


def test_normalize_keeps_silence_and_nothing_finite() -> None:
    assert decoding.normalize_waveform(np.zeros(0, np.float32)).shape == (0,)
    assert decoding.normalize_waveform(np.full(10, 0.25, np.float32)).tolist() == [0.0] * 10


def test_load_waveform_decodes_resamples_and_normalizes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000, 8000), 8000)
    wanted = decoding.normalize_waveform(decoding.load_audio(tmp_path / "a.wav"))
    assert wanted.shape == (16000,)
    np.testing.assert_array_equal(decoding.load_waveform(tmp_path / "a.wav"), wanted)
    with pytest.raises(InputError, match="8000 Hz"):
        decoding.load_waveform(tmp_path / "a.wav", on_rate_mismatch="refuse")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_segment_is_the_same_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone(48000, 16000), 0.5 * tone(48000, 16000)], axis=1) * 0.4, 16000)
    whole, _ = decoding.read_audio(path)
    for start, num_samples in ((0, 1), (12_345, 20_000), (47_999, 1)):
        part, rate = decoding.read_segment(path, start=start, num_samples=num_samples)
        assert rate == 16000 and part.dtype == np.float32
        np.testing.assert_allclose(part, whole[start : start + num_samples], atol=1e-6)
    np.testing.assert_array_equal(decoding.read_segment(path, start=None, num_samples=0)[0], whole)
    with pytest.raises(InputError, match=rf"a\.{suffix} ends before sample 48001 of a segment"):
        decoding.read_segment(path, start=47_000, num_samples=1_001)


def test_a_segment_is_resampled_and_refused_as_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000, 8000), 8000)
    part = decoding.load_audio(path, start=2_000, num_samples=1_001)
    np.testing.assert_array_equal(part, decoding.resample(decoding.read_audio(path)[0][2_000:3_001, 0], 8000, 16000))
    with pytest.raises(InputError, match="8000 Hz, wanted 16000 Hz"):
        decoding.load_audio(path, on_rate_mismatch="refuse", start=0, num_samples=10)
    with pytest.raises(InputError, match="no audio file"):
        decoding.load_audio(tmp_path / "b.wav", start=0, num_samples=10)
    samples = np.zeros(100, np.float32)
    samples[50] = np.inf
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    assert len(decoding.load_audio(path, start=0, num_samples=50)) == 50
    with pytest.raises(InputError, match="not finite"):
        decoding.load_audio(path, start=40, num_samples=20)
