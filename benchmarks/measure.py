"""Measures two sides alternately in one run and reports medians and spread, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, protocol, reference
from engine.common import files
from engine.common.progress import progress_bar
from models.hugging_face import config as hf_config
from models.wav2vec2.config import Wav2Vec2Config, preset

OURS, THEIRS = "ours", "reference"
PRECISIONS = {"float32": "float32", "bf16": "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One row of a table.

    Attributes:
        name: Name of the case.
        task: "train" or "infer".
        precision: Keras policy.
        ours: Our batches.
        theirs: Batches of the reference with the same utterances, padded as it does.
        flops: Floating-point operations of one pass over all batches.
    """

    name: str
    task: str
    precision: str
    ours: Sequence[cases.Batch]
    theirs: Sequence[cases.Batch]
    flops: float


def measure(
    case: Case, *, config: Wav2Vec2Config, model: Mapping[str, Any], device: str, num_repeats: int, with_reference: bool
) -> list[dict[str, Any]]:
    """Returns the record of each side that `summarize` makes.

    Both sides are built and run once; then they take turns, so that other load on the machine affects both. A turn is
    two passes, of which the second is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, protocol.Worker] = {}
        try:
            for side, batches in ((OURS, case.ours), (THEIRS, case.theirs)):
                if side == THEIRS and not with_reference:
                    continue
                path = str(Path(folder) / f"{side}.npz")
                cases.save(path, batches)
                fields = dict(model) if side == OURS else hf_config.to_hf(config)
                spec = protocol.Spec(
                    task=case.task, precision=case.precision, device=device, batches=path, model=fields
                )
                python, module = _interpreter(side)
                sides[side] = protocol.Worker(python=python, module=module, arguments=dataclasses.asdict(spec))
            passes: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            with progress_bar(total=(1 + 2 * num_repeats) * len(sides), description=case.name, unit="pass") as bar:

                def run(worker: protocol.Worker) -> dict[str, float]:
                    answer = worker.ask("run_once")
                    bar.update(1)
                    return answer

                for worker in sides.values():
                    run(worker)
                for _ in range(num_repeats):
                    for side, worker in sides.items():
                        # Training runs without pauses, but a side that waited for the other finds its caches cold.
                        run(worker)
                        passes[side].append(run(worker))
            ceilings = {side: worker.ask("ceiling") for side, worker in sides.items()}
            return [
                summarize(
                    case=case,
                    side=side,
                    passes=passes[side],
                    peak_memory_bytes=worker.ask("peak_memory"),
                    ceiling=max(ceilings.values()),
                    versions=worker.ask("versions"),
                )
                for side, worker in sides.items()
            ]
        finally:
            for worker in sides.values():
                worker.close()


def _interpreter(side: str) -> tuple[str, str]:
    if side == OURS:
        return sys.executable, "benchmarks.our_worker"
    return str(reference.reference_python()), "benchmarks.reference_worker"


def summarize(
    *,
    case: Case,
    side: str,
    passes: Sequence[Mapping[str, float]],
    peak_memory_bytes: int,
    ceiling: float,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Summarizes the passes of one side.

    Args:
        case: Measured case.
        side: OURS or THEIRS.
        passes: Answers of the side to each timed pass.
        peak_memory_bytes: Peak resident memory of the process.
        ceiling: FLOP/s of a large matrix product, the better of both sides.
        versions: Versions of the side's packages.
    """
    batches = case.ours if side == OURS else case.theirs
    audio_secs = sum(batch.audio_secs for batch in batches)
    padded = sum(batch.waveform.size for batch in batches) / cases.SAMPLE_RATE
    secs = [one["secs"] for one in passes]
    middle = statistics.median(secs)
    return {
        "case": case.name,
        "task": case.task,
        "precision": case.precision,
        "side": side,
        "audio_secs": audio_secs,
        "padding_ratio": 1.0 - audio_secs / padded,
        "secs": secs,
        # On a shared machine processor time is more reliable than wall-clock time.
        "cpu_secs": [one["cpu_secs"] for one in passes],
        "audio_secs_per_cpu_sec": audio_secs / statistics.median(one["cpu_secs"] for one in passes),
        "audio_secs_per_sec": audio_secs / middle,
        "slowest_audio_secs_per_sec": audio_secs / max(secs),
        "fastest_audio_secs_per_sec": audio_secs / min(secs),
        "peak_memory_bytes": peak_memory_bytes,
        "matrix_product_flops_per_sec": ceiling,
        "ceiling_ratio": case.flops / middle / ceiling,
        "versions": dict(versions),
    }


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the records as a Markdown table with the ratio of medians in our rows."""
    lines = [
        "| case | precision | side | audio-s/s (slowest to fastest) | ratio | audio-s per processor-s | ratio "
        "| peak memory | share of ceiling |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_side = {(r["case"], r["precision"], r["side"]): r for r in records}

    def ratio(record: Mapping[str, Any], name: str) -> str:
        theirs = by_side.get((record["case"], record["precision"], THEIRS))
        return f"**{record[name] / theirs[name]:.2f}**" if theirs and record["side"] == OURS else ""

    for record in records:
        lines.append(
            f"| {record['case']} | {record['precision'].removeprefix('mixed_')} | {record['side']} | "
            f"{record['audio_secs_per_sec']:.2f} ({record['slowest_audio_secs_per_sec']:.2f} to "
            f"{record['fastest_audio_secs_per_sec']:.2f}) | {ratio(record, 'audio_secs_per_sec')} | "
            f"{record['audio_secs_per_cpu_sec']:.2f} | {ratio(record, 'audio_secs_per_cpu_sec')} | "
            f"{record['peak_memory_bytes'] / 2**30:.2f} GiB | {100 * record['ceiling_ratio']:.0f} % |"
        )
    return "\n".join(lines)


def report(records: Sequence[Mapping[str, Any]], *, output: str, command: Sequence[str]) -> None:
    """Prints the table, and writes records, machine and commit to `output` as JSON unless it is empty."""
    print(table(records))
    if not output:
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=protocol.ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    files.write_json_atomic(
        output,
        {
            "command": " ".join(command),
            "date": datetime.date.today().isoformat(),
            "commit": commit,
            "machine": {"system": platform.platform(), "processor": _processor(), "python": platform.python_version()},
            "records": list(records),
        },
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def benchmark_config(name: str) -> tuple[Wav2Vec2Config, dict[str, Any]]:
    """Returns the architecture `name` for measurements, and the fields of `build_model` for it.

    Dropout rates are those of the published config. Layer drop is off, because passes would compute different amounts.
    """
    fields: dict[str, Any] = {"preset": name, "vocab_size": 32, "layer_drop": 0.0}
    return preset(name, vocab_size=32, layer_drop=0.0), fields
