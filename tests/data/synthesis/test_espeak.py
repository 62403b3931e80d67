"""The synthesizer: deterministic, audible, and different for different voices."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from data.common.errors import InputError
from data.synthesis.espeak import SAMPLE_RATE, Synthesizer, trim_silence

MANNER = {"rate": 160, "pitch": 50, "pitch_range": 50}
TEXTS = ("FOUR SEVEN", "WHERE IS THE RED DOOR", "FOUR SEVEN")


def speak_all(voice: str, seed: int = 0) -> list[np.ndarray]:
    synthesizer = Synthesizer(voice=voice, seed=seed)
    waveforms = [synthesizer.speak(text, **MANNER) for text in TEXTS]
    synthesizer.close()
    return waveforms


def median_pitch_hz(waveform: np.ndarray) -> float:
    pitches = []
    for start in range(0, len(waveform) - 2048, 1024):
        piece = waveform[start : start + 2048] - waveform[start : start + 2048].mean()
        correlation = np.fft.irfft(np.abs(np.fft.rfft(piece, 4096)) ** 2)
        lags = slice(SAMPLE_RATE // 450, SAMPLE_RATE // 55)
        lag = lags.start + int(np.argmax(correlation[lags]))
        if correlation[lag] > 0.4 * correlation[0]:
            pitches.append(SAMPLE_RATE / lag)
    return float(np.median(pitches))


@pytest.mark.parametrize("voice", ["en-us+f2", "en-gb-scotland+m3"])
def test_a_fresh_synthesizer_repeats_the_first_one_to_the_bit(voice):
    first = speak_all(voice)
    speak_all("en+Annie")  # what another one says must not matter
    for ours, theirs in zip(first, speak_all(voice), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_speech_has_a_plausible_length_and_level():
    for text, waveform in zip(TEXTS, speak_all("en-us+m1"), strict=True):
        assert waveform.dtype == np.float32
        assert 0.15 < len(waveform) / SAMPLE_RATE / len(text.split()) < 0.6
        assert 0.05 < np.abs(waveform).max() <= 1.0
        assert np.sqrt(np.mean(waveform**2)) > 0.01


def test_women_speak_higher_than_men():
    low, high = (median_pitch_hz(speak_all(f"en-us+{name}")[1]) for name in ("m3", "f2"))
    assert 70 < low < 140
    assert 150 < high < 280


def test_accents_and_variants_differ():
    waveforms = [speak_all(voice)[0] for voice in ("en-us+m1", "en-us+m7", "en-gb-scotland+m1")]
    spectra = [np.abs(np.fft.rfft(waveform, SAMPLE_RATE))[50:5000] for waveform in waveforms]
    for i, one in enumerate(spectra):
        for other in spectra[:i]:
            assert np.corrcoef(one, other)[0, 1] < 0.95


def test_rate_pitch_and_word_gap_are_obeyed():
    synthesizer = Synthesizer(voice="en-us+m1", seed=0)
    plain = synthesizer.speak(TEXTS[1], **MANNER)
    slow = synthesizer.speak(TEXTS[1], **{**MANNER, "rate": 100})
    high = synthesizer.speak(TEXTS[1], **{**MANNER, "pitch": 90})
    gaps = synthesizer.speak(TEXTS[1], word_gap=20, **MANNER)
    again = synthesizer.speak(TEXTS[1], **MANNER)
    assert len(slow) > 1.3 * len(plain)
    assert median_pitch_hz(high) > 1.2 * median_pitch_hz(plain)
    assert len(gaps) > len(plain) + 0.4 * SAMPLE_RATE
    assert abs(len(again) - len(plain)) < 0.1 * SAMPLE_RATE  # nothing sticks


@pytest.mark.parametrize("voice", ["xx-nowhere", "en-us+nobody"])
def test_unknown_voice_is_refused(voice):
    with pytest.raises(InputError, match=voice.replace("+", r"\+")):
        Synthesizer(voice=voice, seed=0)


def test_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader") as caught:
        Synthesizer(voice="en-us", seed=0)
    assert "make install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_library_is_named(monkeypatch, tmp_path):
    import espeakng_loader

    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
    with pytest.raises(InputError, match="cannot load eSpeak NG"):
        Synthesizer(voice="en-us", seed=0)


def test_library_without_its_voices_is_refused(monkeypatch, tmp_path):
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(tmp_path / "empty"))
    with pytest.raises(InputError, match="cannot start from"):
        Synthesizer(voice="en-us", seed=0)


def test_text_that_makes_no_sound_is_an_error():
    synthesizer = Synthesizer(voice="en-us", seed=0)
    with pytest.raises(RuntimeError, match="cannot say"):
        synthesizer.speak(" ", **MANNER)


def test_trim_silence_keeps_what_is_between():
    waveform = np.array([0.0, 0.001, 0.5, 0.0, -1.0, 0.02, 0.001, 0.0], np.float32)
    np.testing.assert_array_equal(trim_silence(waveform), np.array([0.5, 0.0, -1.0, 0.02], np.float32))
