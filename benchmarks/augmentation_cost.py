"""Measures what each kind of augmentation costs the input pipeline.

    python -m benchmarks.augmentation_cost [--utterances=600] [--rounds=3]

It makes a part of the quickstart's corpus, and reads it as FLAC files of 22,050 Hz (which are resampled) and as shards
with `pcm16` payload, on one core with one batch made at a time, with each kind at probability 1 and its default
strength. Numbers are processor time, the least of some rounds that take turns, because other programs share the
machine. The last column is the share of the pipeline's throughput that the kind costs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Any


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from data.synthetic import write_synthetic_corpus

    with tempfile.TemporaryDirectory() as folder:
        corpus = write_synthetic_corpus(output=os.path.join(folder, "corpus"), num_train=flags.utterances, num_eval=8)
        flac = {"format": "librispeech", "input": str(corpus), "split": "train"}
        shards = {"format": "tfrecord", "input": _pack(str(corpus), folder)}
        for name, fields in (("FLAC", flac), ("shards", shards)):
            print(f"{name:28}  ms per s of audio  throughput lost", flush=True)
            costs = _measure(fields, flags.rounds)
            base = costs[""]
            for kind, cost in costs.items():
                print(
                    f"{kind or 'nothing altered':28}  {1000 * cost:17.3f}  {100 * (1 - base / cost):13.0f} %",
                    flush=True,
                )


def _kinds() -> dict[str, dict[str, Any]]:
    from data.augmentation.options import CODECS, KINDS

    kinds: dict[str, dict[str, Any]] = {"": {}}
    for kind in KINDS:
        if kind != "telephone":
            kinds[kind] = {f"{kind}_prob": 1.0}
    for codec in CODECS:
        kinds[f"telephone, {codec}"] = {"telephone_prob": 1.0, "telephone_codecs": (codec,)}
    kinds["each with probability 0.2"] = {f"{kind}_prob": 0.2 for kind in KINDS}
    return kinds


def _pack(corpus: str, folder: str) -> str:
    from data.corpus.manifest import read_librispeech
    from data.shards.preparation import write_tfrecords

    output = os.path.join(folder, "shards")
    write_tfrecords(
        utterances=read_librispeech(corpus, "train"), output=output, num_shards=2, payload="pcm16", progress=False
    )
    return output


def _measure(corpus: dict[str, Any], num_rounds: int) -> dict[str, float]:
    """Returns seconds of processor time per second of speech, by kind."""
    import tensorflow as tf

    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    costs: dict[str, float] = {}
    opened = {}
    for kind, augment in _kinds().items():
        fields = {**reading_options(), **corpus, "num_parallel_calls": 1, "global_batch_size": 8, "augment": augment}
        opened[kind] = build_train_data(tokenizer=load_tokenizer(), text_normalization="librispeech", seed=0, **fields)
        # Rooms, noises and talkers are made at their first use.
        for _ in opened[kind].dataset(tf.distribute.InputContext(), 0).take(opened[kind].updates_per_epoch):
            pass
    for number in range(num_rounds):
        for kind, data in opened.items():
            dataset = data.dataset(tf.distribute.InputContext(), number * data.updates_per_epoch)
            begin = time.process_time()
            for _ in dataset.take(data.updates_per_epoch):
                pass
            cost = (time.process_time() - begin) / data.duration_secs
            costs[kind] = min(cost, costs.get(kind, cost))
    return costs


if __name__ == "__main__":
    main()
