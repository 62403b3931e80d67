"""Draws random numbers keyed by (seed, epoch, row, kind), from raw bits that NumPy keeps stable between versions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

TRAINING, EVALUATION = "training", "evaluation"
_TO_UNIT = np.float64(2.0**-53)


class Draws:
    """Random numbers that depend on nothing but the seed and the key.

    draws = Draws(seed=0, purpose=TRAINING)
    draws.uniform("noise", epoch, row, count=3)  # float64 [3] in [0, 1)
    """

    def __init__(self, *, seed: int, purpose: str):
        """Stores the key of all streams.

        Args:
            seed: Non-negative seed.
            purpose: Name that keeps training and evaluation apart even if their seeds are equal.
        """
        self._entropy = (seed, zlib.crc32(purpose.encode()))

    def bits(self, stream: str, *key: int, count: int, start: int = 0) -> np.ndarray:
        """Returns random uint64 [count] of a named stream, from the number `start` on."""
        # The batch plan's streams (`data.batches.rows.random_bits`) have the seed alone as entropy: these are others.
        seeds = np.random.SeedSequence(entropy=self._entropy, spawn_key=(zlib.crc32(stream.encode()), *key))
        generator = np.random.Philox(seeds)
        if not start:
            return generator.random_raw(count)
        # Philox counts in blocks of four numbers, so a place in a long stream costs no more than its beginning.
        block, skipped = divmod(start, 4)
        return generator.advance(block).random_raw(skipped + count)[skipped:]

    def uniform(self, stream: str, *key: int, count: int, start: int = 0) -> np.ndarray:
        """Returns float64 [count] in [0, 1), from the number `start` of the stream on."""
        return (self.bits(stream, *key, count=count, start=start) >> np.uint64(11)) * _TO_UNIT

    def normal(self, stream: str, *key: int, count: int) -> np.ndarray:
        """Returns float32 [count] of zero mean and unit variance: sums of four uniform numbers of 16 bits."""
        # Generator.standard_normal would be more exact, but NumPy does not keep its stream stable.
        parts = self.bits(stream, *key, count=count).astype("<u8", copy=False).view("<u2").reshape(count, 4)
        sums = parts.sum(axis=1, dtype=np.uint32).astype(np.float32)
        return (sums - np.float32(2 * 65535)) * np.float32(np.sqrt(3.0) / 65536)


def between(ends: Sequence[float], unit: float) -> float:
    """Maps a number in [0, 1) into a range."""
    return float(ends[0] + (ends[1] - ends[0]) * unit)


def whole_between(ends: Sequence[int], unit: float) -> int:
    """Maps a number in [0, 1) to a whole number of a range, its ends included."""
    return int(ends[0]) + int(unit * (int(ends[1]) - int(ends[0]) + 1))
