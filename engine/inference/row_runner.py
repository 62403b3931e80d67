"""Runs waveforms of any lengths through a step that takes padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from engine.inference.grouping import Grouping, group_by_length

# Padding to a multiple of this keeps the number of shapes small; some operations are compiled for each shape.
PADDING_SAMPLES = 16_000

# (padded waveforms float32 [B, T], lengths int32 [B]) -> results [B, F, ...], number of valid frames of each row [B].
Step: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


class RowRunner:
    """Runs rows in groups of similar length, several groups at a time, and returns results in the order of the rows."""

    def __init__(self, step: Step, grouping: Grouping) -> None:
        """Starts no thread yet.

        Args:
            step: The step; called from `grouping.num_at_once` threads.
            grouping: Options of the grouping.
        """
        self._step = step
        self._grouping = grouping
        self._pool = ThreadPoolExecutor(grouping.num_at_once, thread_name_prefix="rows")

    def submit(self, waveforms: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Starts to run waveforms, after those submitted before.

        Args:
            waveforms: float32 [T] each.

        Returns:
            A function that waits and returns the result [F, ...] of each waveform, or raises the step's error.
        """
        groups = group_by_length([len(waveform) for waveform in waveforms], self._grouping)
        results = [self._pool.submit(self._run, [waveforms[row] for row in rows]) for rows in groups]

        def collect() -> list[np.ndarray]:
            found: dict[int, np.ndarray] = {}
            for rows, result in zip(groups, results, strict=True):
                found.update(zip(rows, result.result(), strict=True))
            return [found[row] for row in range(len(waveforms))]

        return collect

    def _run(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        longest = max(len(waveform) for waveform in waveforms)
        any_shape = len(waveforms), _next_multiple(longest, PADDING_SAMPLES)
        num_rows, num_samples = self._grouping.shape_for(longest) or any_shape
        # Rows do not influence each other: some are run again to fill up the batch.
        lengths = np.array([len(waveforms[row % len(waveforms)]) for row in range(num_rows)], np.int32)
        padded = np.zeros([num_rows, num_samples], np.float32)
        for row, length in enumerate(lengths):
            padded[row, :length] = waveforms[row % len(waveforms)]
        results = [np.asarray(result)[: len(waveforms)] for result in self._step(padded, lengths)]
        return [row[:count] for row, count in zip(*results, strict=True)]


def _next_multiple(number: int, of: int) -> int:
    return -(-number // of) * of
