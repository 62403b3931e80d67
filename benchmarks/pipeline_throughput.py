"""Compares the speed of the input pipeline with that of training the base model.

    python -m benchmarks.pipeline_throughput --input=../shared/corpora/LibriSpeech [--epochs=6] [--updates=4]

In one process it reads train-clean-5 as raw FLAC files and as shards with `pcm16` and `flac` payload for some epochs,
in batches of eight rows in eight buckets, with two batches made at a time. Then base (mixed_bfloat16, frozen feature
encoder) trains on rows of 13 to 15.4 s, two per update. Files are in the page cache. Resident memory is read after the
first and the last epoch. Both sides count audio without padding. Speeds are wall-clock, so only their ratio carries
over to other or shared machines.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from typing import Any

SPLIT = "train-clean-5"


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", default="../shared/corpora/LibriSpeech", help="folder that holds train-clean-5")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--updates", type=int, default=4)
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        corpora = {"raw FLAC": {"format": "librispeech", "input": flags.input, "split": SPLIT}}
        for payload in ("pcm16", "flac"):
            corpora[payload] = {"format": "tfrecord", "input": _pack(flags.input, folder, payload)}
        speeds = {}
        for name, corpus in corpora.items():
            speeds[name], first_mb, last_mb = _read(corpus, flags.epochs)
            print(f"{name}: {speeds[name]:,.0f} audio-s/s; memory {first_mb:.0f} MB after an epoch, {last_mb:.0f} MB "
                  f"after {flags.epochs}", flush=True)  # fmt: skip
        trained, stall_ratio = _train(corpora["pcm16"], flags.updates)
        print(f"base trains: {trained:.2f} audio-s/s, input_stall_ratio {100 * stall_ratio:.2f} %")
        for name, speed in speeds.items():
            print(f"{name}: {speed / trained:,.0f} times as fast")


def _pack(source: str, folder: str, payload: str) -> str:
    from data.corpus.manifest import read_librispeech
    from data.shards.preparation import write_tfrecords

    output = os.path.join(folder, payload)
    write_tfrecords(
        utterances=read_librispeech(source, SPLIT), output=output, num_shards=4, payload=payload, progress=False
    )
    return output


def _open(corpus: dict[str, Any], **fields: Any) -> Any:
    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    fields = {**reading_options(), **corpus, **fields}
    return build_train_data(tokenizer=load_tokenizer(), text_normalization="librispeech", seed=0, **fields)


def _read(corpus: dict[str, Any], num_epochs: int) -> tuple[float, float, float]:
    """Returns audio-seconds per second, and the resident memory (MB) after the first and the last epoch."""
    import tensorflow as tf

    data = _open(corpus, global_batch_size=8)
    num_updates = data.updates_per_epoch
    iterator = iter(data.dataset(tf.distribute.InputContext(), 0))
    memory, samples, begin = [], 0, 0.0
    for epoch in range(num_epochs + 1):
        for _ in range(num_updates):
            batch = next(iterator)
            samples += int(batch["waveform_lengths"].numpy().sum())
        gc.collect()
        memory.append(_resident_mb())
        if epoch == 0:  # excludes the start and what was prefetched before the clock started
            samples, begin = 0, time.monotonic()
    return samples / 16_000 / (time.monotonic() - begin), memory[0], memory[-1]


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
    figures = trainer.train(tf.constant(num_updates))
    return figures["audio_secs"] / (time.monotonic() - begin), figures["input_stall_ratio"]


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
