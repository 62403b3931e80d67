"""Measures what the error report adds to the time of an evaluation.

    python -m benchmarks.error_report [--sizes=200,2620,20000] [--seed=0]

It makes sets like LibriSpeech's (34 words and 12.5 s per utterance, 65 utterances per speaker, a word error rate of
9 %), scores them as an evaluation does, and times what follows: writing the predictions with their history, and the
report with 8 MB of audio. Audio is noise, which has more bytes per second as FLAC than speech. The table has the
seconds of the second of two evaluations, and the size of the page. Results: docs/results/0151.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from common.workdir_layout import REPORT_FILE
from data.common.page import page_environment
from data.shards.records import encode_flac
from engine.actions.writers import PredictionsWriter
from engine.evaluation.metrics import TranscriptionScore
from engine.report.writer import ReportWriter

NUM_WORDS, NUM_KNOWN, UTTERANCES_PER_SPEAKER = 34, 9_000, 65
LETTERS = list("ETAONIHSRDL")


class NoisySet:
    """An evaluation set of random texts and noise, without a corpus."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        words = ["".join(generator.choice(LETTERS, generator.integers(1, 10))) for _ in range(NUM_KNOWN)]
        # Few words are frequent, as in all languages.
        share = 1.0 / np.arange(1, NUM_KNOWN + 1)
        lengths = generator.poisson(NUM_WORDS, size)
        drawn = np.split(generator.choice(NUM_KNOWN, lengths.sum(), p=share / share.sum()), lengths.cumsum()[:-1])
        self.references = {i: " ".join(words[j] for j in row) for i, row in enumerate(drawn)}
        self.texts, self.slices = self.references, {}
        self.utterance_ids = {i: f"utterance-{i:06d}" for i in range(size)}
        self.speaker_ids = {i: f"speaker-{i // UTTERANCES_PER_SPEAKER:03d}" for i in range(size)}
        self.duration_secs = {i: 0.5 + 0.35 * float(length) for i, length in enumerate(lengths)}
        self.num_batches = 0
        self._generator = generator

    def read_flac(self, index: int) -> bytes:
        """Returns noise of the row's length."""
        num_samples = round(16_000 * self.duration_secs[index])
        return encode_flac(self._generator.normal(0.0, 0.1, num_samples).astype(np.float32))

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns no batches, because texts are made here and not recognized."""
        return tf.data.Dataset.range(0)


def transcribe(data: NoisySet, error_rate: float, generator: np.random.Generator) -> TranscriptionScore:
    """Returns the score of a recognizer with random errors: 70 % substitutions, 20 % deletions, 10 % insertions."""
    score = TranscriptionScore()
    for index, reference in data.references.items():
        heard: list[str] = []
        for word in reference.split():
            kind = generator.random() / error_rate
            if kind < 0.7:
                heard.append(word[:-1] + generator.choice(LETTERS))
            elif kind >= 0.9:
                heard += [word, "THE"] if kind < 1.0 else [word]
        score.add(data.utterance_ids[index], reference, " ".join(heard))
    return score


def measure(size: int, seed: int, folder: Path) -> dict[str, float]:
    """Evaluates twice and returns the seconds of each step after the second evaluation, and the page's megabytes."""
    generator = np.random.default_rng(seed)
    data, step = NoisySet(size, generator), tf.Variable(0, dtype=tf.int64)
    found: dict[str, float] = {}
    for update, error_rate in ((1_000, 0.12), (2_000, 0.1)):
        step.assign(update)
        start = time.monotonic()
        score = transcribe(data, error_rate, generator)
        output = {"dev": score.summary()}
        scored = time.monotonic()
        PredictionsWriter(workdir=folder, scores={"dev": score}, data={"dev": data}, global_step=step)(output)
        predicted = time.monotonic()
        ReportWriter(
            workdir=folder,
            global_step=step,
            data={"dev": data},
            page_environment=page_environment,
            max_utterances=100,
            max_audio_mb=8.0,
        )(output)
        found = {
            "WER, %": 100 * output["dev"]["wer"],
            "texts and score, s": scored - start,
            "predictions, s": predicted - scored,
            "report, s": time.monotonic() - predicted,
            "page, MB": (folder / REPORT_FILE).stat().st_size / 1e6,
        }
    return found


def main() -> None:
    """Prints a line of the table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="200,2620,20000", help="utterances of a set")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for number, size in enumerate(map(int, options.sizes.split(","))):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(size, options.seed, Path(folder))
        if not number:
            print("| utterances |", " | ".join(found), "|")
        print(f"| {size:,} |", " | ".join(f"{value:.2f}" for value in found.values()), "|")


if __name__ == "__main__":
    main()
