"""Windows: every sample and every frame once, joined where both are quiet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.windows import LogitsChunk, cut_windows, join_windows, measure_hop

HOP, FIELD = 4, 10


def output_lengths(num_samples):
    return np.maximum((np.asarray(num_samples) - FIELD) // HOP + 1, 0)


def test_hop_and_field():
    assert measure_hop(output_lengths) == (FIELD, HOP)
    with pytest.raises(ValueError, match="fewer than two frames"):
        measure_hop(lambda num_samples: num_samples // 60_000)


def frames_of(window):
    """Log-probabilities that say which sample each frame begins at: a "model" without context."""
    starts = window.waveform[: max(0, len(window.waveform) - FIELD + 1) : HOP]
    return LogitsChunk(np.stack([np.zeros(len(starts)), starts], axis=1).astype(np.float32), window.start_frame)


@given(
    num_samples=st.integers(1, 700),
    block=st.integers(1, 200),
    window=st.integers(FIELD + 5 * HOP, 120),
    step_ratio=st.floats(0.2, 0.8),
)
@settings(max_examples=150)
def test_every_frame_once(num_samples, block, window, step_ratio):
    step = max(HOP, int(window * step_ratio) // HOP * HOP)
    whole = np.arange(num_samples, dtype=np.float32)
    blocks = (whole[i : i + block] for i in range(0, num_samples, block))
    windows = list(cut_windows(blocks, window_samples=window, step_samples=step, hop_samples=HOP))
    for number, found in enumerate(windows):
        assert found.start_frame * HOP == number * step == found.waveform[0]
        assert len(found.waveform) == window or number == len(windows) - 1
    assert windows[-1].waveform[-1] == num_samples - 1
    if window - step < FIELD + HOP:
        return  # too small an overlap for a frame of both windows
    chunks = list(join_windows(map(frames_of, windows)))
    found = np.concatenate([chunk.log_probs[:, 1] for chunk in chunks]) if chunks else np.zeros(0)
    np.testing.assert_array_equal(found, np.arange(output_lengths(num_samples)) * HOP)
    ends = [chunk.start_frame + len(chunk.log_probs) for chunk in chunks]
    assert [chunk.start_frame for chunk in chunks[1:]] == ends[:-1]


def test_windows_meet_in_the_pause():
    blank = np.full(40, -5.0)
    blank[14:24] = -0.001  # of the recording; the windows are frames 0-29 and 10-39, their overlap 10-29
    log_probs = np.stack([blank, np.full(40, -1.0)], axis=1)
    first, second = join_windows([LogitsChunk(log_probs[:30], 0), LogitsChunk(log_probs[10:], 10)])
    # The middle half of the overlap is 15-24; five quiet frames around the joint: 16-21; the middle is 19.5.
    assert second.start_frame in (19, 20)
    assert len(first.log_probs) == second.start_frame


def test_a_frame_that_one_window_doubts_is_no_place_to_join():
    sure, unsure = np.full(20, -0.001), np.full(20, -0.001)
    unsure[8:12] = -3.0
    windows = [LogitsChunk(np.stack([sure, sure], 1), 0), LogitsChunk(np.stack([unsure, sure], 1), 0)]
    joint = list(join_windows(windows))[1].start_frame
    assert joint in (5, 14)


def test_a_step_that_is_not_on_the_frames_is_refused():
    with pytest.raises(ValueError, match="multiple of"):
        list(cut_windows([], window_samples=20, step_samples=6, hop_samples=4))
