"""Measures ways to save memory in training and their cost, and the longest clip that fits.

    python -m benchmarks.clip_memory savers [--precision=bf16] [--repeats=2]
    python -m benchmarks.clip_memory longest [--precision=bf16] [--gradient_checkpointing] [--limit_gib=16]

`savers` runs an update of two rows of 246,000 samples: plain, with gradient checkpointing, in two microbatches, and
with both. `longest` finds the longest clip by bisection, in processes that are killed when they exceed the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import cases, measure, protocol
from models.memory_estimate import measure_model

_SAVERS = ((False, 2), (True, 2), (False, 1), (True, 1))  # gradient checkpointing, rows of a microbatch


class Watched:
    """Runs our side of a benchmark under a limit of resident memory."""

    def __init__(
        self,
        *,
        batch: cases.Batch,
        precision: str,
        gradient_checkpointing: bool,
        microbatch_rows: int,
        limit_bytes: float,
    ):
        """Starts a process that trains on `batch` and is killed when it exceeds `limit_bytes`."""
        self._folder = tempfile.TemporaryDirectory()
        path = str(Path(self._folder.name) / "batch.npz")
        cases.save(path, [batch])
        _, model = measure.benchmark_config("base")
        spec = protocol.Spec(
            task="train",
            precision=measure.PRECISIONS[precision],
            device="cpu",
            batches=path,
            model={**model, "gradient_checkpointing": gradient_checkpointing},
        )
        arguments = {**dataclasses.asdict(spec), "microbatch_rows": microbatch_rows}
        self.worker = protocol.Worker(python=sys.executable, module="benchmarks.our_worker", arguments=arguments)
        self._done = threading.Event()
        self._limit_bytes = limit_bytes
        self.is_over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            if self.worker.resident_bytes() > self._limit_bytes:
                self.is_over = True
                self.worker.kill()
                return

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self.worker.close()
        self._folder.cleanup()


def longest(fits: Callable[[int], bool], *, low: int, high: int) -> int:
    """Returns the largest number from `low` to `high` that fits, or 0; assumes that all smaller numbers fit."""
    found = low - 1
    while low <= high:
        middle = (low + high) // 2
        if fits(middle):
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return max(found, 0)


def _longest(flags: argparse.Namespace) -> None:
    def fits(steps: int) -> bool:
        secs = steps * flags.step_secs
        batch = cases.noise_batch(num_rows=1, num_samples=secs * cases.SAMPLE_RATE)
        limit = flags.limit_gib * 2**30
        with Watched(
            batch=batch,
            precision=flags.precision,
            gradient_checkpointing=flags.gradient_checkpointing,
            microbatch_rows=1,
            limit_bytes=limit,
        ) as side:
            try:
                answer = side.worker.ask("run_once")
                peak = side.worker.ask("peak_memory")
            except RuntimeError:
                if not side.is_over:
                    raise
                print(f"| {secs} | over {flags.limit_gib} GiB | |", flush=True)
                return False
        print(f"| {secs} | {peak / 2**30:.2f} GiB | {answer['cpu_secs']:.0f} |", flush=True)
        return peak <= limit

    print("| seconds | peak memory | processor-s of the first update |\n|---|---|---|")
    found = longest(fits, low=-(-flags.from_secs // flags.step_secs), high=flags.to_secs // flags.step_secs)
    estimate = measure_model(
        source="native", preset="base", hub_handle="", vocab_size=32,
        precision=measure.PRECISIONS[flags.precision], freeze_feature_encoder=True,
        gradient_checkpointing=flags.gradient_checkpointing,
    )  # fmt: skip
    foreseen = longest(
        lambda secs: (estimate.memory_bytes(1, secs * cases.SAMPLE_RATE, True) or 0) <= flags.limit_gib * 2**30,
        low=1, high=3600,
    )  # fmt: skip
    print(f"longest clip: {found * flags.step_secs} s; the doctor's estimate: {foreseen} s")


def _savers(flags: argparse.Namespace) -> None:
    batch = cases.noise_batch(num_rows=2, num_samples=246_000)
    print("| update | peak memory | processor-s | audio-s per processor-s |\n|---|---|---|---|")
    for gradient_checkpointing, microbatch_rows in _SAVERS:
        how = "gradient checkpointing" if gradient_checkpointing else "plain"
        name = f"{how}, {'1 microbatch' if microbatch_rows > 1 else '2 microbatches'}"
        with Watched(
            batch=batch, precision=flags.precision, gradient_checkpointing=gradient_checkpointing,
            microbatch_rows=microbatch_rows,
            limit_bytes=flags.limit_gib * 2**30,
        ) as side:  # fmt: skip
            side.worker.ask("run_once")
            passes = [side.worker.ask("run_once") for _ in range(flags.repeats)]
            peak = side.worker.ask("peak_memory")
        secs = min(one["cpu_secs"] for one in passes)
        print(f"| {name} | {peak / 2**30:.2f} GiB | {secs:.2f} | {batch.audio_secs / secs:.2f} |", flush=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.clip_memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("question", choices=["savers", "longest"])
    parser.add_argument("--precision", default="bf16", choices=list(measure.PRECISIONS))
    parser.add_argument("--gradient_checkpointing", action="store_true", help="of the longest clip")
    parser.add_argument("--limit_gib", type=float, default=16.0)
    parser.add_argument("--step_secs", type=int, default=10, help="how exactly the longest clip is found")
    parser.add_argument("--from_secs", type=int, default=10, help="shortest clip tried")
    parser.add_argument("--to_secs", type=int, default=400, help="longest clip tried")
    parser.add_argument("--repeats", type=int, default=2)
    flags = parser.parse_args(argv)
    if flags.question == "longest":
        _longest(flags)
    else:
        _savers(flags)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
