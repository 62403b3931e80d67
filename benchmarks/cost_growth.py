"""Measures how the cost of training grows with batch size, length, microbatches, replicas and corpus.

    python -m benchmarks.cost_growth measure --questions batch length --output=FOLDER [--preset=base] [--precision=bf16]
    python -m benchmarks.cost_growth measure --questions microbatches replicas corpus --output=FOLDER
    python -m benchmarks.cost_growth draw --output=FOLDER

`measure` adds its records to FOLDER/cost-growth.json, so that it can run in parts; `draw` makes the table
cost-growth.md and the picture cost-growth.svg from them. An update trains on full rows of noise; `corpus` opens a
JSON-lines manifest of 1 to 1,000 hours, whose lines refer to the same few recordings, and makes batches of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import cases, measure, pictures, protocol
from engine.common import files

# Rows, seconds per row, microbatches and replicas of each measured update.
UPDATES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "batch": tuple((rows, 10, 1, 1) for rows in (1, 2, 4, 8)),
    "length": tuple((1, secs, 1, 1) for secs in (5, 10, 20, 40)),
    "microbatches": tuple((4, 10, parts, 1) for parts in (1, 2, 4)),
    "replicas": tuple((4, 10, 1, replicas) for replicas in (1, 2)),
}
CORPUS_HOURS = (1, 10, 100, 1000)
AXES = {
    "batch": "rows of 10 s in an update",
    "length": "seconds of an update's one row",
    "microbatches": "microbatches of an update of 4 rows of 10 s",
    "replicas": "logical CPUs that share 4 rows of 10 s",
    "corpus": "hours of the corpus",
}
_MEAN_SECS = 12.3  # mean of an utterance in LibriSpeech's training sets


def measure_update(
    *, rows: int, secs: int, parts: int, replicas: int, preset: str, precision: str, num_repeats: int
) -> dict[str, float]:
    """Returns the best processor and wall-clock seconds of several updates, and the peak memory."""
    _, model = measure.benchmark_config(preset)
    batch = cases.noise_batch(num_rows=rows, num_samples=secs * cases.SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "batch.npz")
        cases.save(path, [batch])
        spec = protocol.Spec(
            task="train", precision=measure.PRECISIONS[precision], device="cpu", batches=path, model=model
        )
        arguments = {**dataclasses.asdict(spec), "microbatch_rows": rows // (parts * replicas)}
        arguments["num_replicas"] = replicas
        with protocol.Worker(python=sys.executable, module="benchmarks.our_worker", arguments=arguments) as worker:
            worker.ask("run_once")
            passes = [worker.ask("run_once") for _ in range(num_repeats)]
            peak = worker.ask("peak_memory")
    return {
        "audio_secs": batch.audio_secs,
        "cpu_secs": min(one["cpu_secs"] for one in passes),
        "secs": min(one["secs"] for one in passes),
        "peak_memory_bytes": peak,
    }


def write_manifest(folder: Path, hours: float, *, seed: int = 0) -> Path:
    """Writes a manifest of so many hours over ten recordings of noise of 2 to 16 s, and returns its path."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(2.0, 2 * _MEAN_SECS - 2.0, 10)
    for i, secs in enumerate(lengths):
        path = folder / f"{i}.flac"
        if not path.exists():
            noise = rng.normal(0.0, 0.1, round(secs * cases.SAMPLE_RATE)).astype(np.float32)
            soundfile.write(path, noise, cases.SAMPLE_RATE)
    words = ["A", "WORD", "OR", "TWO", "THAT", "STAND", "FOR", "WHAT", "PEOPLE", "READ", "ALOUD"]
    manifest = folder / f"{hours:g}.jsonl"
    with open(manifest, "w", encoding="utf-8") as file:
        for number in range(round(hours * 3600 / _MEAN_SECS)):
            i = int(rng.integers(len(lengths)))
            record = {
                "utterance_id": f"u{number}",
                "audio_filepath": f"{i}.flac",
                "duration": float(lengths[i]),
                "text": " ".join(rng.choice(words, size=max(1, int(2.5 * lengths[i])))),
            }
            file.write(json.dumps(record) + "\n")
    return manifest


def open_corpus(manifest: str, *, num_batches: int = 40) -> dict[str, float]:
    """Measures, in a separate process, the time to open a corpus, to its first batch, and the rate after it."""
    import tensorflow as tf

    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    data = build_train_data(
        tokenizer=load_tokenizer(""), text_normalization="librispeech", format="jsonl", input=manifest,
        global_batch_size=8,
        seed=0, **reading_options(),
    )  # fmt: skip
    opened = time.process_time()
    iterator = iter(data.dataset(tf.distribute.InputContext(), data.updates_per_epoch // 2))
    next(iterator)
    first = time.process_time()
    samples = 0
    for _ in range(num_batches):
        samples += int(next(iterator)["waveform_lengths"].numpy().sum())
    return {
        "num_utterances": data.num_utterances,
        "open_cpu_secs": opened - start,
        "first_batch_cpu_secs": first - opened,
        # A few of the forty batches were prefetched before the clock started.
        "audio_secs_per_cpu_sec": samples / cases.SAMPLE_RATE / (time.process_time() - first),
        "memory_bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
    }


def _measure(flags: argparse.Namespace) -> None:
    path = Path(flags.output) / "cost-growth.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for question in flags.questions:
        found = []
        if question == "corpus":
            with tempfile.TemporaryDirectory() as folder:
                for hours in CORPUS_HOURS:
                    manifest = write_manifest(Path(folder), hours)
                    command = [sys.executable, "-m", "benchmarks.cost_growth", "open", "--manifest", str(manifest)]
                    answer = subprocess.run(command, cwd=protocol.ROOT, check=True, stdout=subprocess.PIPE, text=True)
                    found.append({"x": hours, **json.loads(answer.stdout.splitlines()[-1])})
                    print(question, found[-1], flush=True)
        else:
            position = {"batch": 0, "length": 1, "microbatches": 2, "replicas": 3}[question]
            for rows, secs, parts, replicas in UPDATES[question]:
                figures = measure_update(
                    rows=rows, secs=secs, parts=parts, replicas=replicas, preset=flags.preset,
                    precision=flags.precision, num_repeats=flags.repeats,
                )  # fmt: skip
                found.append({"x": (rows, secs, parts, replicas)[position], **figures})
                print(question, found[-1], flush=True)
        records[question] = {"preset": flags.preset, "precision": flags.precision, "points": found}
        files.write_json_atomic(path, records)


def table(records: Mapping[str, Any]) -> str:
    """Returns the records as two Markdown tables, of updates and of corpora."""
    lines = [
        "| update | processor-s | audio-s per processor-s | audio-s/s | peak memory |",
        "|---|---|---|---|---|",
    ]
    for question in UPDATES:
        for point in records.get(question, {}).get("points", ()):
            lines.append(
                f"| {AXES[question]}: {point['x']} | {point['cpu_secs']:.2f} | "
                f"{point['audio_secs'] / point['cpu_secs']:.2f} | {point['audio_secs'] / point['secs']:.2f} | "
                f"{point['peak_memory_bytes'] / 2**30:.2f} GiB |"
            )
    if "corpus" in records:
        lines += ["", "| corpus | utterances | opening, processor-s | first batch, processor-s | "
                  "then, audio-s per processor-s | memory |", "|---|---|---|---|---|---|"]  # fmt: skip
        for point in records["corpus"]["points"]:
            lines.append(
                f"| {point['x']:,} h | {point['num_utterances']:,} | {point['open_cpu_secs']:.2f} | "
                f"{point['first_batch_cpu_secs']:.2f} | {point['audio_secs_per_cpu_sec']:,.0f} | "
                f"{point['memory_bytes'] / 2**20:.0f} MiB |"
            )
    return "\n".join(lines)


def draw(records: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws a panel for each question: rates of updates, and seconds until training can start on a corpus."""
    shown = [question for question in AXES if question in records]
    rates = {
        question: [point["audio_secs"] / point["cpu_secs"] for point in records[question]["points"]]
        for question in shown
        if question != "corpus"
    }
    highest = max((rate for found in rates.values() for rate in found), default=1.0)
    with pictures.panels(path, count=len(shown), width=2.9, height=2.5) as panels:
        for question, panel in zip(shown, panels, strict=True):
            points = records[question]["points"]
            x = [point["x"] for point in points]
            if question == "corpus":
                secs = [point["open_cpu_secs"] + point["first_batch_cpu_secs"] for point in points]
                panel.loglog(x, secs, "o-", color=pictures.DARK)
                panel.set_ylabel("processor-s to the first batch")
            else:
                panel.plot(x, rates[question], "o-", color=pictures.DARK)
                panel.set_xscale("log", base=2)
                panel.set_ylim(0, 1.1 * highest)  # the same for all panels, so that they can be compared
                panel.set_ylabel("audio-s per processor-s")
            panel.set_xticks(x, [f"{value:,}" for value in x])
            panel.minorticks_off()
            panel.set_xlabel(AXES[question])
            panel.grid(alpha=0.3)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.cost_growth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["measure", "draw", "open"])
    parser.add_argument("--questions", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--output", default="cost-growth", help="folder of the records, the table and the picture")
    parser.add_argument("--preset", default="base", help="architecture")
    parser.add_argument("--precision", default="bf16", choices=list(measure.PRECISIONS))
    parser.add_argument("--repeats", type=int, default=2, help="updates timed, of which the best counts")
    parser.add_argument("--manifest", default="", help="of open, which measures one corpus")
    flags = parser.parse_args(argv)
    if flags.what == "open":
        print(json.dumps(open_corpus(flags.manifest)))
    elif flags.what == "measure":
        _measure(flags)
    else:
        folder = Path(flags.output)
        records = json.loads((folder / "cost-growth.json").read_text(encoding="utf-8"))
        files.write_text_atomic(folder / "cost-growth.md", table(records) + "\n")
        draw(records, folder / "cost-growth.svg")
        print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
