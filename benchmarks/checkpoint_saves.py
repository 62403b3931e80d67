"""Measures how long a checkpoint stops training, and how much a background save slows the updates.

    python -m benchmarks.checkpoint_saves [--preset=base] [--updates=12] [--rounds=3] [--rows=2] [--secs=2] [--output=D]

The model trains with Adam on rows of noise. A round runs the same number of updates three times: without a save, with a
save at the start that training waits for, and with one at the start in the background. `stands still` is the time that
`save` blocks the training thread, `whole` the time until the manifest is written, both from the start of the save.
`all updates` is the time until the last update is done, which includes the cost of writing.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import cases, measure

_WAYS = ("no save", "waits", "background")


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--updates", type=int, default=12, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--secs", type=float, default=2.0, help="of a row")
    parser.add_argument("--precision", choices=measure.PRECISIONS, default="bf16")
    parser.add_argument("--output", default="", help="folder on the disk to measure; default a temporary one")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(dir=flags.output or None) as folder:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
        for way, figures in _rounds(flags, Path(folder)):
            found[way].append(figures)
            print(way, {name: round(value, 3) for name, value in figures.items()}, flush=True)
    print(f"\nmedians of {flags.rounds} rounds")
    for way, rounds in found.items():
        names = rounds[0]
        print(way, {name: round(statistics.median(one[name] for one in rounds), 3) for name in names})
    print(f"largest resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def _rounds(flags, folder: Path):
    """Yields (way, measurements) for each way and round; the first round of all is discarded."""
    import tensorflow as tf

    from benchmarks.our_worker import Side
    from engine.checkpointing import manifest
    from engine.checkpointing.manager import CheckpointManager

    batch = cases.noise_batch(num_rows=flags.rows, num_samples=int(flags.secs * cases.SAMPLE_RATE))
    cases.save(str(folder / "batches.npz"), [batch])
    _, model = measure.benchmark_config(flags.preset)
    side = Side(
        task="train", precision=measure.PRECISIONS[flags.precision], device="cpu", batches=str(folder / "batches.npz"),
        model=model,
    )  # fmt: skip
    trainer = side.trainer
    side.run_once()
    state = tf.train.Checkpoint(model=trainer.model, optimizer=trainer.optimizer, global_step=trainer.global_step)
    managers = {
        way: CheckpointManager(
            checkpoint=state, directory=folder / way, global_step=trainer.global_step, every_updates=1, keep=1,
            in_background=way == "background",
        )
        for way in _WAYS[1:]
    }  # fmt: skip
    for number in range(flags.rounds + 1):
        for way in _WAYS:
            start, cpu_start = time.perf_counter(), time.process_time()
            figures = {}
            if way in managers:
                managers[way].save(checkpoint_number=int(trainer.global_step.numpy()))
                figures["stands still"] = time.perf_counter() - start
            for _ in range(flags.updates):
                side.run_once()
            figures["all updates"] = time.perf_counter() - start
            if way in managers:
                managers[way].finish()
                (path,) = manifest.list_checkpoints(folder / way)
                age = time.time() - os.stat(path + ".manifest.json").st_mtime
                figures["whole"] = time.perf_counter() - age - start
                figures["MiB"] = sum(os.path.getsize(file) for file in manifest.files_of(path)) / 2**20
            figures["processor"] = time.process_time() - cpu_start
            if number:
                yield way, figures


if __name__ == "__main__":
    main()
