"""Measures the speed of the input pipeline for each core, and compares it with that of training the base model.

    python -m benchmarks.pipeline_throughput --input=../shared/corpora/LibriSpeech [--epochs=6] [--updates=4]

In one process it reads train-clean-5 as raw FLAC files and as shards with `pcm16` and `flac` payload for some epochs,
in batches of 32 rows in eight buckets, at one speed and at three, with one and with two batches made at a time. Files
are in the page cache. Resident memory is read after the first and the last epoch. Then base (mixed_bfloat16, frozen
feature encoder) trains on rows of 13 to 15.4 s, two per update; `--updates=0` leaves that out. Both sides count audio
without padding. On a shared machine, seconds of audio for each processor-second carry over,
wall-clock speeds do not.

What a machine with more cores feeds has two limits: the cores, and Python's interpreter lock, which one thread at a
time holds. Decoders, the resampler and NumPy let it go; the rest is the cost of a row without audio, measured with
rows of 0.2 s. What `--cores` cores would feed is computed from both, not measured.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

SPLIT = "train-clean-5"
PAYLOADS = ("pcm16", "flac")
SPEEDS = (0.9, 1.0, 1.1)


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", default="../shared/corpora/LibriSpeech", help="folder that holds train-clean-5")
    parser.add_argument("--split", default=SPLIT, help="another split")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--updates", type=int, default=4, help="updates of the training to compare with; 0 = none")
    parser.add_argument("--cores", type=int, default=16, help="cores to compute the speed of")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        corpora = _corpora({"format": "librispeech", "input": flags.input, "split": flags.split}, f"{folder}/whole")
        short = _corpora(_write_short(folder), f"{folder}/short")
        print("| source | speeds | audio-s/s, 1 thread | 2 threads | audio-s per processor-s | us of a row locked "
              f"| {flags.cores} cores would feed | memory, MB |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        fastest = {}
        for name, corpus in corpora.items():
            for speeds in ((1.0,), SPEEDS):
                one = _read(corpus, flags.epochs, speed_factors=speeds, num_parallel_calls=1)
                two = _read(corpus, flags.epochs, speed_factors=speeds, num_parallel_calls=2)
                locked_secs = _row_secs(short[name], speeds)
                most = min(flags.cores * one.per_processor_sec, one.secs_per_row / locked_secs)
                fastest[name] = max(fastest.get(name, 0.0), two.speed)
                print(f"| {name} | {len(speeds)} | {one.speed:,.0f} | {two.speed:,.0f} | {one.per_processor_sec:,.0f} "
                      f"| {1e6 * locked_secs:,.0f} | {most:,.0f} | {two.memory_mb[0]:.0f} to {two.memory_mb[1]:.0f} |",
                      flush=True)  # fmt: skip
        if flags.updates:
            trained, stall_ratio = _train(corpora["pcm16"], flags.updates)
            print(f"base trains: {trained:.2f} audio-s/s, input_stall_ratio {100 * stall_ratio:.2f} %")
            for name, speed in fastest.items():
                print(f"{name}: {speed / trained:,.0f} times as fast")


class Reading(NamedTuple):
    """Speeds of the pipeline, in seconds of audio.

    Attributes:
        speed: For each second.
        per_processor_sec: For each processor-second of the process.
        secs_per_row: For each row.
        memory_mb: Resident memory after the first and after the last epoch.
    """

    speed: float
    per_processor_sec: float
    secs_per_row: float
    memory_mb: tuple[float, float]


def _corpora(raw: dict[str, Any], folder: str) -> dict[str, dict[str, Any]]:
    """Returns a corpus of FLAC files, and the same as shards of each payload."""
    return {"raw FLAC": raw, **{name: {"format": "tfrecord", "input": _pack(raw, folder, name)} for name in PAYLOADS}}


def _write_short(folder: str, *, num_rows: int = 256, num_samples: int = 3_200) -> dict[str, Any]:
    """Writes a corpus of short recordings."""
    import soundfile

    from data.corpus.manifest import write_jsonl
    from data.corpus.utterance import Utterance

    utterances = []
    for number in range(num_rows):
        path = f"{folder}/{number}.flac"
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, num_samples), 16_000)
        utterances.append(Utterance(f"short-{number}", path, "A TEXT OF SOME WORDS", num_samples, 16_000))
    write_jsonl(f"{folder}/short.jsonl", utterances)
    return {"format": "jsonl", "input": f"{folder}/short.jsonl"}


def _pack(raw: dict[str, Any], folder: str, payload: str) -> str:
    from data.corpus.manifest import read_jsonl, read_librispeech
    from data.shards.preparation import write_tfrecords

    utterances = read_jsonl(raw["input"]) if raw["format"] == "jsonl" else read_librispeech(raw["input"], raw["split"])
    output = os.path.join(folder, payload)
    write_tfrecords(utterances=utterances, output=output, num_shards=4, payload=payload, progress=False)
    return output


def _open(corpus: dict[str, Any], **fields: Any) -> Any:
    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    fields = {**reading_options(), **corpus, **fields}
    return build_train_data(tokenizer=load_tokenizer(), text_normalization="librispeech", seed=0, **fields)


def _read(corpus: dict[str, Any], num_epochs: int, **fields: Any) -> Reading:
    import tensorflow as tf

    data = _open(corpus, global_batch_size=32, **fields)
    iterator = iter(data.dataset(tf.distribute.InputContext(), 0))
    memory, samples, rows, begin, cpu_begin = [], 0, 0, 0.0, 0.0
    for epoch in range(num_epochs + 1):
        for _ in range(data.updates_per_epoch):
            batch = next(iterator)
            samples += int(batch["waveform_lengths"].numpy().sum())
            rows += int(batch["weight"].numpy().sum())
        gc.collect()
        memory.append(_resident_mb())
        if epoch == 0:  # excludes the start and what was prefetched before the clock started
            samples, rows, begin, cpu_begin = 0, 0, time.monotonic(), time.process_time()
    secs, wall_secs = samples / 16_000, time.monotonic() - begin
    return Reading(secs / wall_secs, secs / (time.process_time() - cpu_begin), secs / rows, (memory[0], memory[-1]))


def _row_secs(corpus: dict[str, Any], speeds: tuple[float, ...], num_updates: int = 24) -> float:
    """Returns the processor time of a row of a corpus of short rows."""
    from data.batches.pipeline import BatchMaker

    data = _open(corpus, global_batch_size=32, speed_factors=speeds)
    maker = BatchMaker(source=data.source, plan=data.plan, tokenizer=data.tokenizer, text_normalization="librispeech")
    maker.make(0)  # opens the files
    start = time.thread_time()
    rows = sum(int(maker.make(update)["weight"].sum()) for update in range(num_updates))
    return (time.thread_time() - start) / rows


def _train(corpus: dict[str, Any], num_updates: int) -> tuple[float, float]:
    """Returns audio-seconds per second, and the ratio of time that the loop waited for input."""
    import tensorflow as tf

    from engine.distributed import strategy as runtime
    from engine.training.optimizer import build_optimizer
    from engine.training.options import TrainerOptions
    from engine.training.trainer import Trainer
    from models.build import build_model
    from models.ctc import loss

    data = _open(
        corpus, global_batch_size=2, min_duration_secs=13.0, max_duration_secs=15.375,
        bucket_boundaries_samples=(246_000,),
    )  # fmt: skip
    strategy = runtime.build_strategy("one_device")
    with strategy.scope():
        model = build_model(
            source="native", preset="base", hub_handle="", vocab_size=32, precision="mixed_bfloat16",
            freeze_feature_encoder=True,
        )  # fmt: skip
        trainer = Trainer(
            strategy=strategy,
            model=model,
            optimizer=build_optimizer(name="adam", learning_rate=3e-5),
            global_step=tf.Variable(0, dtype=tf.int64),
            dataset_fn=data.dataset,
            loss_fn=loss.ctc_loss,
            feasible_fn=loss.feasible,
            options=TrainerOptions(microbatch_rows=1),
        )
    trainer.train(tf.constant(1))  # tracing
    begin = time.monotonic()
    metrics = trainer.train(tf.constant(num_updates))
    return metrics["audio_secs"] / (time.monotonic() - begin), metrics["input_stall_ratio"]


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
