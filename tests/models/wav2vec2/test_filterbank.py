"""The Gabor filters: where they listen, and that their phases add up to an envelope."""

from __future__ import annotations

import numpy as np
import pytest

from models.wav2vec2.config import preset
from models.wav2vec2.feature_encoder import FeatureEncoder
from models.wav2vec2.filterbank import gabor_kernel


def test_each_filter_passes_its_band_and_centres_rise_over_the_speech_range():
    kernel = gabor_kernel(256, 160)[:, 0]
    spectrum = np.abs(np.fft.rfft(kernel, 4096, axis=0))
    peaks_hz = spectrum.argmax(axis=0) * 16_000 / 4096
    centres = peaks_hz.reshape(40, 4)
    np.testing.assert_allclose(centres, centres[:, :1] * np.ones(4), atol=30)
    assert (np.diff(centres[:, 0]) > 0).all()
    assert 80 < centres[0, 0] < 200
    assert 6_500 < centres[-1, 0] < 7_400
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), np.sqrt(2), rtol=1e-5)


def test_rectified_phases_sum_to_nearly_the_same_for_any_phase_of_the_signal():
    kernel = gabor_kernel(256, 160)[:, 0]
    time_secs = np.arange(256) / 16_000
    sums = []
    for phase in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        tone = np.cos(2 * np.pi * 1000 * time_secs + phase)
        sums.append(np.maximum(tone @ kernel, 0).reshape(40, 4).sum(axis=1).max())
    assert max(sums) / min(sums) < 1.5  # a single phase would swing between 0 and its peak


def test_kernel_is_where_the_tiny_model_starts():
    config = preset("tiny")
    encoder = FeatureEncoder(config=config, dtype="float32")
    np.testing.assert_array_equal(encoder.convolutions[0].kernel.numpy(), gabor_kernel(256, 160))
    noise = FeatureEncoder(config=preset("tiny", conv_init="random"), dtype="float32").convolutions[0].kernel.numpy()
    assert np.abs(noise - gabor_kernel(256, 160)).max() > 0.01


def test_channels_must_come_in_fours():
    with pytest.raises(ValueError, match="multiple of 4 channels, got 10"):
        gabor_kernel(256, 10)
