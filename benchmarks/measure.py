"""Measures two sides alternately in one run and reports medians and spread, as a table and as JSON."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, protocol, reference
from engine.common import files
from engine.common.progress import progress_bar
from engine.distributed import gpus
from models.hugging_face import config as hf_config
from models.wav2vec2.config import Wav2Vec2Config, preset

OURS, OURS_PLAIN, OURS_COMPILED = "ours", "ours, plain", "ours, compiled"
THEIRS, COMPILED = "reference", "reference, compiled"
# As the model's defaults say, without parts that XLA compiles, and compiled by XLA as a whole.
VARIANTS = {"default": OURS, "plain": OURS_PLAIN, "compiled": OURS_COMPILED}
REFERENCES = {"eager": THEIRS, "compiled": COMPILED}  # without and with torch.compile
_ANY_SECS = 1e6
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """How the cases are measured.

    Attributes:
        config: Architecture.
        model: Fields of `models.wav2vec2.model.build_model` for it.
        device: "cpu" or "gpu".
        num_repeats: Timed passes of each side.
        references: Variants of the reference, of `REFERENCES`; empty measures ours alone.
        reference_python: Interpreter of the reference; "" makes an environment for it.
        ours: Our variants, of `VARIANTS`.
        start_secs: Longest time that building a side and its first pass may take; 0 = any.
    """

    config: Wav2Vec2Config
    model: Mapping[str, Any]
    device: str
    num_repeats: int
    references: Sequence[str]
    reference_python: str = ""
    ours: Sequence[str] = (OURS,)
    start_secs: float = 0.0

    def start(self, side: str, case: Case, folder: str) -> protocol.Worker:
        """Starts the process of a side and prints its command.

        Raises:
            RuntimeError: The side cannot be built.
        """
        path = str(Path(folder) / f"{side.replace(', ', '-')}.npz")
        is_ours = side in VARIANTS.values()
        cases.save(path, case.ours if is_ours else case.theirs)
        model = {**self.model, "fused_ops": "off"} if side == OURS_PLAIN else dict(self.model)
        spec = protocol.Spec(
            task=case.task,
            precision=case.precision,
            device=self.device,
            batches=path,
            model=model if is_ours else hf_config.to_hf(self.config, model_type=hf_config.usual_type(self.config)),
            compile=side in (OURS_COMPILED, COMPILED),
        )
        if is_ours:
            python, module = sys.executable, "benchmarks.our_worker"
        else:
            python = self.reference_python or str(reference.reference_python())
            module = "benchmarks.reference_worker"
        precision = case.precision.removeprefix("mixed_")
        print(
            f"{side}: {python} -m {module}: {case.task}, {precision}, {self.device}, compile={spec.compile}", flush=True
        )
        return protocol.Worker(python=python, module=module, arguments=dataclasses.asdict(spec))


@dataclasses.dataclass(frozen=True)
class StartedSide:
    """A side that has run once.

    Attributes:
        worker: Its process.
        first: What it answered to the first pass.
        secs: How long it took to be built and to run once, other sides beside it.
    """

    worker: protocol.Worker
    first: Mapping[str, float]
    secs: float


def measure(case: Case, setup: Setup) -> list[dict[str, Any]]:
    """Returns the record of each side that `summarize` makes.

    All sides are built and run once side by side, which compiles; then they take turns, so that other load on the
    machine affects all. A compiled variant that cannot be built is left out, with a line.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = start_sides(case, setup, folder, stack)
        print(f"{case.name}: {', '.join(sides)} ready", flush=True)
        return time_sides(case, setup, sides)


def time_sides(case: Case, setup: Setup, sides: Mapping[str, StartedSide]) -> list[dict[str, Any]]:
    """Returns the record of each side; a turn of a side is two passes, of which the second is timed."""
    passes: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with progress_bar(total=2 * setup.num_repeats * len(sides), description=case.name, unit="pass") as bar:
        for _ in range(setup.num_repeats):
            for side, started in sides.items():
                # Training runs without pauses, but a side that waited for the other finds its caches cold.
                started.worker.ask("run_once")
                passes[side].append(started.worker.ask("run_once"))
                bar.update(2)
    # Before the products, which need memory of their own.
    peaks = {side: started.worker.ask("peak_memory") for side, started in sides.items()}
    ceilings = {side: started.worker.ask("ceiling") for side, started in sides.items()}
    return [
        {
            **summarize(
                case=case,
                side=side,
                passes=passes[side],
                peak_memory_bytes=peaks[side],
                ceiling=max(ceilings.values()),
                versions=started.worker.ask("versions"),
            ),
            "own_matrix_product_flops_per_sec": ceilings[side],
            "device": setup.device,
            "first_figure": started.first["figure"],
            "start_secs": started.secs,
        }
        for side, started in sides.items()
    ]


def start_sides(case: Case, setup: Setup, folder: str, stack: contextlib.ExitStack) -> dict[str, StartedSide]:
    """Starts the sides at the same time and returns those that could be built, by name.

    Args:
        case: What they will run.
        setup: Which sides, and how long they may take.
        folder: Folder for their batches.
        stack: Ends the processes.

    Raises:
        RuntimeError: A side that is not compiled cannot be built, or none was ready in time.
    """
    names = [*setup.ours, *setup.references]
    workers: dict[str, protocol.Worker] = {}

    def start(side: str) -> StartedSide:
        begin = time.monotonic()
        workers[side] = stack.enter_context(setup.start(side, case, folder))
        first = workers[side].ask("run_once")
        return StartedSide(workers[side], first, time.monotonic() - begin)

    started: dict[str, StartedSide] = {}
    failures = []
    deadline = time.monotonic() + (setup.start_secs or _ANY_SECS)
    # Leaving the pool waits for its threads, so a side that takes too long is killed before.
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        for side, future in {name: pool.submit(start, name) for name in names}.items():
            try:
                started[side] = future.result(timeout=max(0.0, deadline - time.monotonic()))
                continue
            except TimeoutError:
                reason = f"it was not ready after {setup.start_secs:.0f} s"
                if side in workers:
                    workers[side].kill()
            except RuntimeError as error:
                reason = " ".join(str(error).split())[-300:]
                if side not in (OURS_COMPILED, COMPILED):
                    failures.append(error)
            print(f"{side} is left out: {reason}", file=sys.stderr)
    if failures or not started:
        raise failures[0] if failures else RuntimeError(f"{case.name}: no side was ready")
    return started


def find_most_rows(case: Case, setup: Setup, *, limit_bytes: int) -> list[dict[str, Any]]:
    """Returns for each side the most rows of the first batch's length that an update was found to fit.

    The peak memory of an update with as many rows as the batch has, and with twice as many, says how many should fit;
    these are tried, then a tenth fewer at a time. Each trial is a process of its own, alone on the device.

    Args:
        case: Case whose first batch has rows of one length.
        setup: How to run it.
        limit_bytes: Memory of the device.
    """
    num_rows, num_samples = case.ours[0].waveform.shape

    def peak(side: str, rows: int) -> int | None:
        batch = [cases.noise_batch(num_rows=rows, num_samples=num_samples)]
        try:
            with tempfile.TemporaryDirectory() as folder:
                trial = dataclasses.replace(case, ours=batch, theirs=batch)
                with setup.start(side, trial, folder) as worker:
                    worker.ask("run_once")
                    return worker.ask("peak_memory")
        except RuntimeError as error:
            print(f"{side}: {rows} rows do not fit: {' '.join(str(error).split())[-200:]}", file=sys.stderr)
            return None

    records = []
    for side in (*setup.ours, *setup.references):
        low, high = peak(side, num_rows), peak(side, 2 * num_rows)
        most = 0 if low is None else num_rows
        if low is not None and high is not None:
            most = 2 * num_rows
            expected = num_rows + int((limit_bytes - low) * num_rows / max(high - low, 1))
            for rows in (expected, int(0.9 * expected), int(0.81 * expected)):
                if rows > most and peak(side, rows) is not None:
                    most = rows
                    break
        records.append({"case": case.name, "precision": case.precision, "side": side, "rows_that_fit": most})
        print(f"{case.name}, {case.precision.removeprefix('mixed_')}, {side}: {most} rows fit", flush=True)
    return records


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
        side: One of `VARIANTS` or of `REFERENCES`.
        passes: Answers of the side to each timed pass.
        peak_memory_bytes: Peak memory of the GPU, or on a CPU the peak resident memory of the process.
        ceiling: FLOP/s of a large matrix product, the best of all sides.
        versions: Versions of the side's packages.
    """
    batches = case.ours if side in VARIANTS.values() else case.theirs
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
    """Returns the records as a Markdown table; our rows have the ratio of medians to the better reference."""
    lines = [
        "| case | precision | side | audio-s/s (slowest to fastest) | ratio | audio-s per processor-s | ratio "
        "| peak memory | share of ceiling |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def ratio(record: Mapping[str, Any], name: str) -> str:
        """Returns ours as a multiple of the best variant of the reference."""
        key = (record["case"], record["precision"])
        same = [one for one in records if (one["case"], one["precision"]) == key]
        theirs = [one[name] for one in same if one["side"] in REFERENCES.values()]
        return f"**{record[name] / max(theirs):.2f}**" if theirs and record["side"] in VARIANTS.values() else ""

    for record in records:
        lines.append(
            f"| {record['case']} | {record['precision'].removeprefix('mixed_')} | {record['side']} | "
            f"{record['audio_secs_per_sec']:.2f} ({record['slowest_audio_secs_per_sec']:.2f} to "
            f"{record['fastest_audio_secs_per_sec']:.2f}) | {ratio(record, 'audio_secs_per_sec')} | "
            f"{record['audio_secs_per_cpu_sec']:.2f} | {ratio(record, 'audio_secs_per_cpu_sec')} | "
            f"{record['peak_memory_bytes'] / 2**30:.2f} GiB | {100 * record['ceiling_ratio']:.0f} % |"
        )
    return "\n".join(lines)


def report(
    records: Sequence[Mapping[str, Any]],
    *,
    output: str,
    command: Sequence[str],
    most_rows: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Prints the table and what each side is, and writes all records, machine and commit to `output` if it is given."""
    print(table(records))
    for side, versions in {record["side"]: record["versions"] for record in records}.items():
        print(f"{side}: {', '.join(f'{package} {version}' for package, version in versions.items())}")
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
            "machine": {
                "system": platform.platform(),
                "processor": _processor(),
                "gpus": gpus.ask_nvidia_smi("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
                "python": platform.python_version(),
            },
            "records": list(records),
            "most_rows": list(most_rows),
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
