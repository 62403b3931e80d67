"""Level, silence, clipping and content of recordings."""

from __future__ import annotations

import numpy as np
import pytest

from data.common.errors import InputError
from data.doctor.audio_checks import CLIPPED_RATIO, MIN_ACTIVE_RATIO, SILENT_PEAK, measure_audio, measure_recording


def tone(secs: float = 1.0, amplitude: float = 0.5, rate: int = 16_000) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 220 * np.arange(round(secs * rate)) / rate)).astype(np.float32)[:, None]


def test_a_tone_has_its_peak_and_its_level() -> None:
    sound = measure_recording(tone(), 16_000)
    assert sound.peak == pytest.approx(0.5, abs=1e-3)
    assert sound.level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert sound.active_ratio == 1.0
    assert sound.clipped_ratio < CLIPPED_RATIO


def test_an_offset_is_no_sound() -> None:
    assert measure_recording(np.full((1600, 1), 0.3, np.float32), 16_000).peak < SILENT_PEAK


def test_silence_around_a_tone_is_measured() -> None:
    padded = np.concatenate([tone(0.5), np.zeros((16_000 * 19 // 2, 1), np.float32)])
    sound = measure_recording(padded, 16_000)
    assert sound.active_ratio == pytest.approx(0.05, abs=0.002)
    assert sound.active_ratio < MIN_ACTIVE_RATIO


@pytest.mark.parametrize("gain_after", [1.0, 0.3])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_clipping_shows_at_any_level_and_rate(gain_after: float, rate: int) -> None:
    speech_like = tone(rate=rate) * np.random.default_rng(0).uniform(0.2, 1.0, (rate, 1)).astype(np.float32)
    assert measure_recording(speech_like, rate).clipped_ratio < CLIPPED_RATIO
    clipped = np.clip(speech_like * 4, -1, 1) * np.float32(gain_after)
    assert measure_recording(clipped, rate).clipped_ratio > 10 * CLIPPED_RATIO


def test_one_clipped_channel_of_two_shows() -> None:
    both = np.concatenate([np.clip(tone() * 8, -1, 1), tone()], axis=1)
    assert measure_recording(both, 16_000).clipped_ratio > CLIPPED_RATIO


def test_the_key_is_that_of_the_16_bit_content() -> None:
    waveform = tone()
    # What a shard holds of it.
    stored = np.rint(waveform * 32768).astype("<i2").astype(np.float32) / 32768
    stereo = np.repeat(waveform, 2, axis=1)
    keys = {measure_recording(x, 16_000).key for x in (waveform, stored, stereo)}
    assert len(keys) == 1
    assert measure_recording(waveform * 0.99, 16_000).key not in keys
    assert measure_recording(waveform, 8_000).key not in keys


def test_the_model_hears_one_of_two_channels_that_cancel() -> None:
    sound = measure_recording(np.concatenate([tone(), -tone()], axis=1), 16_000)
    assert sound.cancels and sound.peak == pytest.approx(0.5, abs=1e-3) and sound.active_ratio == 1.0
    assert not measure_recording(np.concatenate([tone(), tone()], axis=1), 16_000).cancels


def test_what_is_lost_in_the_mix_is_not_heard() -> None:
    # Opposite, but for one channel among three: the mix keeps a third of one, and that is what is measured.
    sound = measure_recording(np.concatenate([tone(), -tone(), tone()], axis=1), 16_000)
    assert sound.peak == pytest.approx(0.5 / 3, abs=1e-3) and not sound.cancels


def test_sound_beyond_full_scale_is_measured_as_it_is() -> None:
    sound = measure_recording(tone(amplitude=4.0), 16_000)
    assert sound.peak == pytest.approx(4.0, abs=0.01) and sound.clipped_ratio < CLIPPED_RATIO
    # The key is that of the shard, which holds it scaled.
    assert sound.key == measure_recording(tone(amplitude=4.0) / np.abs(tone(amplitude=4.0)).max(), 16_000).key


class Recordings:
    """Tones of rising length; every seventh cannot be read."""

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        if index % 7 == 0:
            raise (InputError("broken") if index else RuntimeError("libsndfile's own"))
        return tone(0.05 + index * 1e-4, amplitude=0.1 + 1e-4 * index), 16_000


def test_every_recording_is_listened_to_once_and_failures_are_kept() -> None:
    indices = np.arange(0, 2500, 2)
    calls: list[int] = []
    sounds = measure_audio(Recordings(), indices, advance=calls.append, num_workers=3)
    bad = {index for index in indices.tolist() if index % 7 == 0}
    assert sum(calls) == len(indices)
    assert set(sounds.errors) == bad
    assert str(sounds.errors[0]) == "cannot be read: libsndfile's own"
    for index, peak, key in zip(indices.tolist(), sounds.peak, sounds.keys, strict=True):
        if index in bad:
            assert np.isnan(peak) and key == b""
        else:
            assert peak == pytest.approx(0.1 + 1e-4 * index, rel=0.1)
    assert len(set(sounds.keys)) == len(indices) - len(bad) + 1
