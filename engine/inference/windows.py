"""Long recordings in overlapping windows: where they begin, and how their frames become one sequence again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

# Frames on both sides of a joint that should be blank in both windows: tokens move a little with their context.
_QUIET_FRAMES = 5


class Window(NamedTuple):
    """One window of a recording.

    Attributes:
        waveform: float32 [N], as many samples as a window has; fewer in the last one.
        start_frame: Frame of the recording that the window's frame 0 is.
    """

    waveform: np.ndarray
    start_frame: int


class Piece(NamedTuple):
    """Consecutive frames of a recording.

    Attributes:
        log_probs: float32 [F, V].
        start_frame: Frame of the recording that the first one is.
    """

    log_probs: np.ndarray
    start_frame: int


def measure_hop(output_lengths: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Returns the receptive field of a frame and the hop between frames, both in samples.

    Args:
        output_lengths: Numbers of samples, int32 [N] -> numbers of frames.

    Raises:
        ValueError: Four seconds do not make two frames.
    """
    frames = np.asarray(output_lengths(np.arange(64_000, dtype=np.int32)))
    if frames[-1] < 2:
        raise ValueError("the model makes fewer than two frames of four seconds of audio")
    receptive_field = int(np.argmax(frames >= 1))
    return receptive_field, int(np.argmax(frames >= 2)) - receptive_field


def cut_windows(
    blocks: Iterable[np.ndarray], *, window_samples: int, step_samples: int, hop_samples: int
) -> Iterator[Window]:
    """Cuts a recording into windows; holds one window and one block at a time.

    Args:
        blocks: float32 [N], the recording piece by piece.
        window_samples: Samples of a window.
        step_samples: From the beginning of a window to that of the next, a multiple of the hop; windows overlap by the
            difference.
        hop_samples: From frame to frame.

    Yields:
        The windows. The last one, if it is not the only one, is longer than an overlap.
    """
    if step_samples % hop_samples or not 0 < step_samples < window_samples:
        raise ValueError(f"{step_samples=} must be a multiple of {hop_samples=} and below {window_samples=}")
    buffer = np.zeros(0, np.float32)
    start_frame = 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        # One sample more: whether a window is the last one is known when there is something after it.
        while len(buffer) > window_samples:
            yield Window(buffer[:window_samples], start_frame)
            buffer = buffer[step_samples:]
            start_frame += step_samples // hop_samples
    if len(buffer):
        yield Window(buffer, start_frame)


def join_windows(windows: Iterable[Piece], *, blank_id: int = 0) -> Iterator[Piece]:
    """Joins the frames of overlapping windows, each frame of the recording once.

    Two windows meet in the middle half of their overlap, on the frame around which both are surest of blank: in a
    pause, where there is one, else between two tokens.

    Args:
        windows: Frames of each window, in order; each window begins before the one before it ends.
        blank_id: Index of the blank.

    Yields:
        Pieces that follow each other without gap or overlap.
    """
    held: Piece | None = None
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
            yield Piece(held.log_probs[: joint - held.start_frame], held.start_frame)
        held = Piece(window.log_probs[joint - window.start_frame :], joint)
    if held is not None and len(held.log_probs):
        yield held


def _quietest(before: np.ndarray, after: np.ndarray) -> int:
    """Frame of the overlap, float [O] blank log-probabilities of both windows, to join at."""
    size = len(before)
    if size < 4:
        return size // 2
    blank = np.minimum(before, after)
    padded = np.pad(blank, _QUIET_FRAMES // 2, mode="edge")
    quiet = np.lib.stride_tricks.sliding_window_view(padded, _QUIET_FRAMES).min(axis=1)
    candidates = quiet[size // 4 : size - size // 4]
    # Of equally quiet frames the middle one: there both windows know most of what surrounds it. Log-probabilities of a
    # pause differ in digits that mean nothing.
    best = np.flatnonzero(candidates >= candidates.max() - 0.01)
    centre = (len(candidates) - 1) / 2
    return size // 4 + int(best[np.argmin(np.abs(best - centre))])
