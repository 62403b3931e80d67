"""Makes cases from utterances of a LibriSpeech tree, with the lengths of a real corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import cases
from configs.base import get_config
from data.audio.decoding import load_waveform
from data.batches.buckets import choose_bucket_boundaries
from data.corpus.manifest import read_librispeech
from data.text.normalization import normalize_transcript
from data.text.tokenizer import load_tokenizer


def reading_options() -> dict[str, Any]:
    """Returns the fields of config.data that decide how batches are read, with their default values."""
    data = get_config().data
    return {name: data[name] for name in ("on_rate_mismatch", "num_buckets", "num_parallel_calls", "prefetch_batches")}


def load_rows(
    *, root: str, split: str, count: int, batch_size: int = 1, max_samples: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Returns waveforms and labels of utterances with the batches of the whole split, and all lengths.

    Args:
        root: Folder of LibriSpeech splits.
        split: Name of the split.
        count: Number of utterances, in whole batches.
        batch_size: Rows of a batch.
        max_samples: Longer utterances are left out; 0 = none.

    Raises:
        ValueError: If the corpus is absent, or too small for a batch.
    """
    utterances = [u for u in read_librispeech(root, split) if not max_samples or u.num_samples <= max_samples]
    lengths = [utterance.num_samples for utterance in utterances]
    tokenizer = load_tokenizer()
    chosen = [utterances[i] for i in cases.pick_evenly(lengths, count, batch_size=batch_size)]
    if not chosen:
        raise ValueError(f"{root}/{split} holds {len(utterances)} utterances, no batch of {batch_size}")
    labels = [
        np.array(tokenizer.encode(normalize_transcript(utterance.text, "librispeech")), np.int32)
        for utterance in chosen
    ]
    return [load_waveform(utterance.audio_filepath) for utterance in chosen], labels, lengths


def bucketed(
    rows: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, lengths: Sequence[int], batch_size: int,
    num_buckets: int = 8,
) -> list[cases.Batch]:  # fmt: skip
    """Returns our batches of similar lengths, padded to the buckets of a run over the whole split."""
    boundaries = choose_bucket_boundaries(np.array(lengths), num_buckets)
    return [
        cases.make_batch(
            [rows[i] for i in members],
            [labels[i] for i in members],
            num_samples=cases.round_up(max(len(rows[i]) for i in members), [int(b) for b in boundaries]),
        )
        for members in cases.group([len(row) for row in rows], batch_size)
    ]


def grouped(rows: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, batch_size: int) -> list[cases.Batch]:
    """Returns the reference's batches, grouped by length and padded to the longest row."""
    return [
        cases.make_batch([rows[i] for i in members], [labels[i] for i in members])
        for members in cases.group([len(row) for row in rows], batch_size)
    ]
