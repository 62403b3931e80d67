"""Cuts long recordings into overlapping windows and joins their frames into one sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

# Number of frames around a joint that should be blank in both windows: tokens shift a little with their context.
_QUIET_FRAMES = 5


class Window(NamedTuple):
    """One window of a recording.

    Attributes:
        waveform: Samples, float32 [N]; fewer than a full window in the last one.
        start_frame: Position of the window's first frame in the recording, in frames.
    """

    waveform: np.ndarray
    start_frame: int


class LogitsChunk(NamedTuple):
    """Log-probabilities of consecutive frames of a recording.

    Attributes:
        log_probs: float32 [F, V].
        start_frame: Position of the first frame in the recording, in frames.
    """

    log_probs: np.ndarray
    start_frame: int


def measure_hop(output_lengths: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Returns the receptive field of a frame and the hop between frames, both in samples.

    Args:
        output_lengths: Maps numbers of samples, int32 [N], to numbers of frames.

    Raises:
        ValueError: Four seconds of audio give fewer than two frames.
    """
    frames = np.asarray(output_lengths(np.arange(64_000, dtype=np.int32)))
    if frames[-1] < 2:
        raise ValueError("the model produces fewer than two frames for four seconds of audio; use another model")
    receptive_field = int(np.argmax(frames >= 1))
    return receptive_field, int(np.argmax(frames >= 2)) - receptive_field


def cut_windows(
    blocks: Iterable[np.ndarray], *, window_samples: int, step_samples: int, hop_samples: int
) -> Iterator[Window]:
    """Cuts a recording into windows, holding one window and one block in memory.

    Args:
        blocks: Consecutive blocks of the recording, float32 [N].
        window_samples: Length of a window, in samples.
        step_samples: Distance between the starts of two windows, in samples, a multiple of the hop.
        hop_samples: Hop between frames, in samples.

    Yields:
        The windows. The last one, if it is not the only one, is longer than the overlap.
    """
    if step_samples % hop_samples or not 0 < step_samples < window_samples:
        raise ValueError(f"{step_samples=} must be a multiple of {hop_samples=} and below {window_samples=}")
    buffer = np.zeros(0, np.float32)
    start_frame = 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        # Strictly longer: a window is not the last one only if there are samples after it.
        while len(buffer) > window_samples:
            yield Window(buffer[:window_samples], start_frame)
            buffer = buffer[step_samples:]
            start_frame += step_samples // hop_samples
    if len(buffer):
        yield Window(buffer, start_frame)


def join_windows(windows: Iterable[LogitsChunk], *, blank_id: int = 0) -> Iterator[LogitsChunk]:
    """Joins the frames of overlapping windows, each frame of the recording once.

    Two windows are joined in the middle half of their overlap, at the frame around which both are surest of blank: in
    a pause if there is one, else between two tokens.

    Args:
        windows: Frames of the windows in order; each window begins before the previous one ends.
        blank_id: Index of the blank.

    Yields:
        Chunks without gaps or overlaps.
    """
    held: LogitsChunk | None = None
    for window in windows:
        if held is None:
            held = window
            continue
        first = max(window.start_frame, held.start_frame)
        end = min(held.start_frame + len(held.log_probs), window.start_frame + len(window.log_probs))
        joint = first + _quietest(
            held.log_probs[first - held.start_frame : end - held.start_frame, blank_id],
            window.log_probs[first - window.start_frame : end - window.start_frame, blank_id],
        )
        if joint > held.start_frame:
            yield LogitsChunk(held.log_probs[: joint - held.start_frame], held.start_frame)
        held = LogitsChunk(window.log_probs[joint - window.start_frame :], joint)
    if held is not None and len(held.log_probs):
        yield held


def _quietest(before: np.ndarray, after: np.ndarray) -> int:
    """Returns the frame of an overlap to join at, from the blank log-probabilities float [O] of both windows."""
    size = len(before)
    if size < 4:
        return size // 2
    blank = np.minimum(before, after)
    padded = np.pad(blank, _QUIET_FRAMES // 2, mode="edge")
    quiet = np.lib.stride_tricks.sliding_window_view(padded, _QUIET_FRAMES).min(axis=1)
    candidates = quiet[size // 4 : size - size // 4]
    # Of equally quiet frames the middle one, where both windows have the most context. The tolerance ignores
    # meaningless differences within a pause.
    best = np.flatnonzero(candidates >= candidates.max() - 0.01)
    centre = (len(candidates) - 1) / 2
    return size // 4 + int(best[np.argmin(np.abs(best - centre))])
