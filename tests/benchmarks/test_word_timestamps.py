"""The parts of the benchmark that decide what a difference is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.word_timestamps import differences, find_onset


def test_the_onset_is_where_the_energy_rises():
    waveform = np.full(16_000, 1e-3, np.float32)
    waveform[4_800:8_000] = np.sin(np.arange(3_200))
    assert find_onset(waveform) == pytest.approx(0.3)


def test_only_words_that_were_heard_right_are_compared():
    starts = np.array([[0.0, 0.1], [1.0, 1.1], [2.0, 2.1]])
    heard = [{"text": "ONE", "start": 0.2}, {"text": "NINE", "start": 1.0}, {"text": "SIX", "start": 1.95}]
    found = differences(["ONE", "FIVE", "SIX"], starts, heard)
    np.testing.assert_allclose(found, [[0.2, 0.1], [-0.05, -0.15]], atol=1e-9)
    assert differences(["ONE"], starts, []) == []
