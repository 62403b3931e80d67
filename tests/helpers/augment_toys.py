"""A corpus of noise-like utterances and an augmenter over it, for tests of augmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

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


def write_white_corpus(folder: Path, *, count: int, num_samples: int) -> str:
    """Writes recordings of white noise, u0.wav and so on, and returns the path of their manifest."""
    lines = []
    for index in range(count):
        soundfile.write(folder / f"u{index}.wav", white(num_samples, seed=index), 16_000)
        lines.append(json.dumps({"audio_filepath": f"u{index}.wav", "text": "a"}) + "\n")
    (folder / "m.jsonl").write_text("".join(lines))
    return str(folder / "m.jsonl")


def make_augmenter(source: Any = None, *, seed: int = 0, purpose: str = TRAINING, **fields: Any) -> Augmenter:
    """An augmenter with these options; everything else is off."""
    options = AugmentOptions(**fields)
    return Augmenter(options=options, source=source or ToySource(), seed=seed, purpose=purpose)


def decibels(ratio: float) -> float:
    """A ratio of powers in dB."""
    return float(10 * np.log10(ratio))
