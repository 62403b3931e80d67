"""A corpus of noise-like utterances and an augmenter over it, for tests of augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

from data.augmentation.augmenter import Augmenter
from data.augmentation.draws import TRAINING
from data.augmentation.options import AugmentOptions


class ToySource:
    """Utterances of noise with lengths of their own."""

    def __init__(self, lengths=(16_000, 12_000, 20_000, 9_000, 30_000)):
        self.num_samples = np.array(lengths, dtype=np.int64)
        self.utterance_ids = [f"utterance-{index}" for index in range(len(lengths))]
        self.texts = ["a"] * len(lengths)
        self.speaker_ids = [""] * len(lengths)
        self.bad: dict[int, Exception] = {}
        self.reads: list[int] = []

    def read_waveform(self, index: int) -> np.ndarray:
        self.reads.append(index)
        if index in self.bad:
            raise self.bad[index]
        return white(int(self.num_samples[index]), seed=index)


def white(num_samples: int, *, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """White noise, float32 [num_samples]."""
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def make_augmenter(source: Any = None, *, seed: int = 0, purpose: str = TRAINING, **fields: Any) -> Augmenter:
    """An augmenter with these options; everything else is off."""
    options = AugmentOptions(**fields)
    return Augmenter(options=options, source=source or ToySource(), seed=seed, purpose=purpose)


def decibels(ratio: float) -> float:
    """A ratio of powers in dB."""
    return float(10 * np.log10(ratio))
