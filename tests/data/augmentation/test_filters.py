"""Filters have the gains that they are asked for; the telephone has nothing above 4 kHz; silence stays silence."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from scipy import signal

from data.augmentation import filters
from tests.helpers.augment_toys import decibels, white

LENGTHS = (1, 2, 7, 1000, 4096, 16_001)


def tone(frequency, num_samples=32_000):
    return np.sin(2 * np.pi * frequency * np.arange(num_samples) / 16_000).astype(np.float32)


def gain_db(function, frequency):
    """The gain of a tone, without the ends."""
    before = tone(frequency)
    inner = slice(4000, 28_000)
    return decibels(filters.power(function(before)[inner]) / max(filters.power(before[inner]), 1e-30))


@pytest.mark.parametrize("num_samples", LENGTHS)
@pytest.mark.parametrize("num_taps", [1, 5, 512, 3000])
def test_convolution_is_that_of_the_definition(num_samples, num_taps):
    waveform, kernel = white(num_samples), white(num_taps, seed=1)
    full = np.convolve(waveform.astype(np.float64), kernel.astype(np.float64))
    np.testing.assert_allclose(filters.convolve(waveform, kernel), full[:num_samples], atol=2e-6)
    origin = num_taps // 2
    found = filters.convolve(waveform, kernel, origin=origin)
    np.testing.assert_allclose(found, full[origin : origin + num_samples], atol=2e-6)
    assert found.dtype == np.float32


def test_the_equalizer_has_the_gain_of_each_octave_and_none_beyond():
    gains = np.array([-6.0, 6.0, -10.0, 10.0, 0.0, -3.0, 3.0, -9.0])
    # The lowest octaves are narrower than the filter can resolve.
    for octave, wanted in list(zip(filters.OCTAVES_HZ, gains, strict=True))[3:7]:
        assert gain_db(lambda wave: filters.equalize(wave, gains), octave) == pytest.approx(wanted, abs=0.8)
    for frequency in (40, 80, 170, 333, 700, 1400, 2500, 5000, 7900):
        assert -10.6 < gain_db(lambda wave: filters.equalize(wave, gains), frequency) < 10.6


def test_an_equalizer_without_gain_changes_nothing_and_a_flat_one_the_level():
    waveform = white(20_000)
    np.testing.assert_allclose(filters.equalize(waveform, np.zeros(8)), waveform, atol=1e-6)
    np.testing.assert_allclose(filters.equalize(waveform, np.full(8, 20.0)), 10 * waveform, atol=1e-5)


def test_filters_shift_nothing_in_time():
    click = np.zeros(8000, np.float32)
    click[4000] = 1.0
    for altered in (filters.equalize(click, np.linspace(-10, 10, 8)), filters.low_pass(click, 3000.0)):
        assert np.abs(altered).argmax() == 4000
        np.testing.assert_allclose(altered[4000 - 200 : 4000], altered[4000 + 200 : 4000 : -1], atol=1e-6)
    for codec in ("none", "mulaw"):
        assert abs(int(np.abs(filters.telephone(click, codec)).argmax()) - 4000) <= 1


def test_a_low_pass_keeps_what_is_below_and_removes_what_is_above():
    for frequency, low, high in ((500, -0.1, 0.1), (2900, -0.3, 0.3), (3400, -200, -40), (6000, -200, -60)):
        assert low <= gain_db(lambda wave: filters.low_pass(wave, 3000.0), frequency) <= high


@pytest.mark.parametrize("codec", ["none", "mulaw", "gsm"])
def test_a_telephone_has_nothing_above_4_khz_and_keeps_the_level_of_speech_between(codec):
    waveform = white(48_000)
    found = filters.telephone(waveform, codec)
    assert (found.shape, found.dtype) == (waveform.shape, np.float32)
    frequencies, density = signal.welch(found, 16_000, nperseg=1024)
    _, before = signal.welch(waveform, 16_000, nperseg=1024)
    in_band = (frequencies > 500) & (frequencies < 3000)
    beyond = density[frequencies > 4100].sum() / density.sum()
    assert decibels(beyond) < -60
    # GSM codes noise coarsely.
    assert decibels(density[in_band].sum() / before[in_band].sum()) == pytest.approx(
        0.0, abs=3.0 if codec == "gsm" else 0.2
    )
    if codec == "none":
        assert decibels(density[frequencies < 150].sum() / before[frequencies < 150].sum()) < -30


def test_a_telephone_without_a_codec_keeps_a_tone_of_its_band_sample_by_sample():
    inner = slice(2000, 30_000)
    np.testing.assert_allclose(filters.telephone(tone(1000), "none")[inner], tone(1000)[inner], atol=2e-3)
    # Eight bits, logarithmic: 38 dB below the tone.
    noise = filters.telephone(tone(1000), "mulaw")[inner] - tone(1000)[inner]
    assert -42 < decibels(filters.power(noise) / filters.power(tone(1000)[inner])) < -34


def test_mu_law_is_that_of_libsndfile_bit_for_bit():
    samples = np.arange(-32_768, 32_768).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="AU", subtype="ULAW")
    file.seek(0)
    wanted, _ = soundfile.read(file, dtype="float32")
    np.testing.assert_array_equal(filters.mulaw(samples / np.float32(32_768)), wanted)


@pytest.mark.parametrize("codec", ["none", "mulaw", "gsm"])
@pytest.mark.parametrize("num_samples", LENGTHS)
def test_a_telephone_keeps_any_length_and_silence(codec, num_samples):
    assert filters.telephone(white(num_samples), codec).shape == (num_samples,)
    assert not filters.telephone(np.zeros(num_samples, np.float32), codec).any()


def test_a_quiet_recording_comes_through_a_codec_as_a_loud_one_does():
    loud = white(16_000, level=0.2)
    for codec in ("mulaw", "gsm"):
        quiet = filters.telephone(loud * np.float32(2.0**-9), codec) * np.float32(2.0**9)
        np.testing.assert_allclose(quiet, filters.telephone(loud, codec), atol=1e-5)


def test_clipping_cuts_at_its_level_below_the_peak_and_leaves_the_rest():
    waveform = white(16_000)
    peak = np.abs(waveform).max()
    found = filters.clip(waveform, 6.0)
    level = peak * 10 ** (-6 / 20)
    assert np.abs(found).max() == pytest.approx(level, rel=1e-6)
    is_below = np.abs(waveform) < level * 0.999
    assert 0.5 < is_below.mean() < 1.0
    np.testing.assert_array_equal(found[is_below], waveform[is_below])
    np.testing.assert_array_equal(filters.clip(waveform, 0.0), waveform)
    assert not filters.clip(np.zeros(5, np.float32), 10.0).any()
