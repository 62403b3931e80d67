"""Small corpora that several tests of data/ write and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data.batches.datasets import EvalData, TrainData, build_eval_data, build_train_data
from data.batches.plan import BatchPlan
from data.batches.rows import Concatenation, RowOptions
from data.corpus.utterance import Utterance
from data.shards.writer import ShardTask

READING = {"on_rate_mismatch": "resample", "num_buckets": 8, "num_parallel_calls": 2, "prefetch_batches": 4}


def train_data(**fields: Any) -> TrainData:
    """Training data with the usual options, changed by `fields`."""
    return build_train_data(**{**READING, **fields})


def eval_data(**fields: Any) -> EvalData:
    """Evaluation data with the usual options, changed by `fields`."""
    return build_eval_data(**{**READING, **fields})


def batch_plan(**fields: Any) -> BatchPlan:
    """A plan whose `rows` are given as their fields, and those of concatenation as concat_NAME."""
    joining, rows = (
        {name: fields.pop(prefix + name) for name in type.__dataclass_fields__ if prefix + name in fields}
        for type, prefix in ((Concatenation, "concat_"), (RowOptions, ""))
    )
    return BatchPlan(**fields, rows=RowOptions(concatenation=Concatenation(**joining), **rows))


def make_utterances(folder: Path, count: int = 7) -> list[Utterance]:
    """Int16 noise at 16 kHz, at full scale, so that shards keep every bit."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        samples = random.integers(-32768, 32768, 500 + 37 * index).astype(np.int16)
        samples[:2] = [-32768, 32767]
        path = folder / f"u{index}.flac"
        soundfile.write(path, samples, 16000)
        text = f"Word {'x' * index}\u2019s"
        found.append(Utterance(path.stem, str(path), text, len(samples), 16000, f"s{index % 2}"))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make_task(path: Path, utterances: list[Utterance], **changes: Any) -> ShardTask:
    """A shard of these utterances, whose transcripts are A, B ..."""
    fields: dict[str, Any] = {
        "path": str(path),
        "utterances": utterances,
        "texts": list("ABCDEFGH"[: len(utterances)]),
        "payload": "pcm16",
        "on_rate_mismatch": "resample",
        "max_bad": 1,
        "fingerprint": "f",
        "newest_ns": 0,
    }
    return ShardTask(**{**fields, **changes})
