"""Compares training speed with the reference.

    python -m benchmarks.train_throughput [--quick] [--output=F.json]

The cases are full rows of 246,000 samples (the published fixed size), two on a CPU and eight on a GPU unless --rows
says otherwise, and utterances of a LibriSpeech split in batches of similar lengths, padded to buckets (ours) or to the
longest row (the reference).

    python -m benchmarks.train_throughput --device=gpu --cases full --rows 8 32 --fit [--reference_python=python3]

compares on a GPU: the reference runs with and without torch.compile, and the better one counts; ours runs as the
model's defaults say and compiled by XLA as a whole, as a run on a GPU does for few shapes of batches; --fit also finds
how many rows fit into its memory. Peak memory is then the GPU's. The share of the ceiling is the rate of the operations
that the model needs, by that of a lone matrix product, the fastest of all sides'.

    python -m benchmarks.train_throughput --profile=FOLDER [--tensorboard] [--cases full] [--precisions bf16]

profiles our side instead, with `benchmarks.update_profile`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases, flops, measure, speech, update_profile
from engine.common import files
from engine.config.memory import available_memory
from models.wav2vec2.config import Wav2Vec2Config

_FULL_SAMPLES = 246_000


def make_cases(arguments: argparse.Namespace, config: Wav2Vec2Config) -> list[measure.Case]:
    """Returns the cases that the flags select."""
    made = []
    batches: list[tuple[str, list[cases.Batch], list[cases.Batch]]] = []
    if "full" in arguments.cases:
        for rows in arguments.rows or [8 if arguments.device == "gpu" else 2]:
            # A single update is too short to time on a GPU.
            count = arguments.updates or (8 if arguments.device == "gpu" else 1)
            full = [cases.noise_batch(num_rows=rows, num_samples=arguments.num_samples, seed=n) for n in range(count)]
            batches.append((f"{rows} rows of {arguments.num_samples:,} samples", full, full))
    if "real" in arguments.cases:
        count = arguments.batch_size * (2 if arguments.quick else 4)
        rows, labels, lengths = speech.load_rows(
            root=arguments.corpus, split=arguments.split, count=count, batch_size=arguments.batch_size,
            max_samples=20 * cases.SAMPLE_RATE,
        )  # fmt: skip
        batches.append(
            (
                f"{len(rows)} utterances of {arguments.split}, {arguments.batch_size} at a time",
                speech.bucketed(rows, labels, lengths=lengths, batch_size=arguments.batch_size),
                speech.grouped(rows, labels, batch_size=arguments.batch_size),
            )
        )
    for precision in arguments.precisions:
        for name, ours, theirs in batches:
            made.append(
                measure.Case(
                    name=name,
                    task="train",
                    precision=measure.PRECISIONS[precision],
                    ours=ours,
                    theirs=theirs,
                    flops=sum(
                        flops.training_flops(config, int(n), num_rows=len(b.lengths)) for b in ours for n in b.lengths
                    ),
                )
            )
    return made


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of both throughput benchmarks."""
    parser.add_argument("--preset", default="base", help="architecture")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "float32"], choices=list(measure.PRECISIONS))
    parser.add_argument("--repeats", type=int, default=0, help="timed passes of each side; 0 = 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="fewer utterances and passes")
    parser.add_argument(
        "--references",
        nargs="*",
        choices=list(measure.REFERENCES),
        help="variants of the reference; none = ours alone; by default eager, and on a GPU compiled too",
    )
    parser.add_argument("--no_reference", action="store_true", help="ours alone")
    parser.add_argument(
        "--reference_python", default="", help="interpreter with PyTorch; by default an environment of its own"
    )
    parser.add_argument(
        "--start_secs", type=float, default=0.0, help="leave out a side that takes longer to build and compile; 0 = any"
    )
    parser.add_argument("--rows", nargs="*", type=int, default=[], help="rows of the batches of the full case")
    parser.add_argument("--num_samples", type=int, default=_FULL_SAMPLES, help="of a row of the full case")
    parser.add_argument("--corpus", default="../shared/corpora/LibriSpeech", help="LibriSpeech tree of the real case")
    parser.add_argument("--output", default="", help="JSON file")


def run(arguments: argparse.Namespace, made: Sequence[measure.Case], argv: Sequence[str], name: str) -> int:
    """Measures the cases and reports."""
    config, model = measure.benchmark_config(arguments.preset)
    variants = arguments.references
    if variants is None:
        variants = ["eager", "compiled"] if arguments.device == "gpu" else ["eager"]
    ours = getattr(arguments, "ours", None)
    if ours is None:
        ours = ["default", "compiled"] if arguments.device == "gpu" else ["default"]
    setup = measure.Setup(
        config=config,
        model=model,
        device=arguments.device,
        num_repeats=arguments.repeats or (2 if arguments.quick else 5),
        references=[] if arguments.no_reference else [measure.REFERENCES[name] for name in variants],
        reference_python=arguments.reference_python,
        ours=[measure.VARIANTS[name] for name in ours],
        start_secs=arguments.start_secs,
    )
    records = [record for case in made for record in measure.measure(case, setup)]
    most_rows = []
    if getattr(arguments, "fit", False):
        limit_bytes = round(arguments.fit_gib * 2**30) or available_memory()
        if limit_bytes is None:
            raise ValueError("--fit: the memory of the GPU is unknown here; give --fit_gib")
        # A variant of the reference that could not be measured would seem to fit no row.
        measured = {record["side"] for record in records}
        setup = dataclasses.replace(setup, references=[side for side in setup.references if side in measured])
        most_rows = measure.find_most_rows(made[0], setup, limit_bytes=limit_bytes)
    command = ["python", "-m", f"benchmarks.{name}", *argv]
    measure.report(records, output=arguments.output, command=command, most_rows=most_rows)
    return 0


def add_profile_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `profile`."""
    parser.add_argument("--profile", default="", help="folder for tables and pictures of where a pass spends its time")
    parser.add_argument("--tensorboard", action="store_true", help="keep the traces there as well, for TensorBoard")


def profile(arguments: argparse.Namespace, made: Sequence[measure.Case]) -> int:
    """Profiles our passes over the cases and writes the tables."""
    folder = Path(arguments.profile)
    folder.mkdir(parents=True, exist_ok=True)
    _, model = measure.benchmark_config(arguments.preset)
    for number, case in enumerate(made):
        name = f"{case.task}-{number}-{case.precision.removeprefix('mixed_')}"
        with tempfile.TemporaryDirectory() as scratch:
            trace = str(folder / "tensorboard" / name) if arguments.tensorboard else scratch
            times, secs = update_profile.measure(case, device=arguments.device, model=model, trace=trace)
        title = f"{case.name}, {case.precision.removeprefix('mixed_')}"
        text = f"{title}: processor time of one pass, one thread\n\n{update_profile.table(times, pass_secs=secs)}\n"
        print(text)
        files.write_text_atomic(folder / f"{name}.md", text)
        update_profile.draw(times, folder / f"{name}.svg", title=title)
    if arguments.tensorboard:
        print(f"tensorboard --logdir={folder / 'tensorboard'}")
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.train_throughput", description=__doc__)
    add_common_flags(parser)
    parser.add_argument("--cases", nargs="+", default=["full", "real"], choices=["full", "real"])
    parser.add_argument(
        "--ours",
        nargs="+",
        choices=list(measure.VARIANTS),
        help="our variants: as the model's defaults say, without parts that XLA compiles, compiled by XLA as a whole; "
        "by default the first, and on a GPU the last too",
    )
    parser.add_argument("--updates", type=int, default=0, help="of a pass over full rows; 0 = 1, on a GPU 8")
    parser.add_argument("--fit", action="store_true", help="find how many rows of the first case fit")
    parser.add_argument("--fit_gib", type=float, default=0.0, help="memory for --fit; 0 = that of the GPU")
    parser.add_argument("--split", default="train-clean-5", help="split of the real case")
    parser.add_argument("--batch_size", type=int, default=4, help="rows of a batch of the real case")
    add_profile_flags(parser)
    arguments = parser.parse_args(argv)
    config, _ = measure.benchmark_config(arguments.preset)
    try:
        made = make_cases(arguments, config)
        if arguments.profile:
            return profile(arguments, made)
        return run(arguments, made, argv, "train_throughput")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
