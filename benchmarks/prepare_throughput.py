"""Measures how fast a corpus is written as shards, by payload and number of processes.

    python -m benchmarks.prepare_throughput --input=../shared/corpora/LibriSpeech [--repeat=4] [--rounds=3]
    python -m benchmarks.prepare_throughput --memory_utterances=300000

The splits of the corpus are repeated `repeat` times, so that a run lasts seconds; files are in the page cache. The
times exclude the import of TensorFlow; `start` measures it once, as the command on a single utterance. The cases take
turns `rounds` times, and the best of each counts, because on a shared machine slower ones measure other load.

The second command prints the memory of the parent process during a run on so many utterances, with ids, speakers and
transcripts as long as LibriSpeech's. Instead of workers, a runner writes notes without audio.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from data.common.files import Lock, write_text_atomic
from data.corpus.manifest import read_librispeech, write_jsonl
from data.corpus.utterance import Utterance
from data.shards.preparation import write_tfrecords
from data.shards.writer import ShardTask

SPLITS = ("train-clean-5", "dev-mini", "test-clean")
CASES = [(payload, num_workers) for payload in ("pcm16", "flac") for num_workers in (1, 2)]


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", default="../shared/corpora/LibriSpeech", help="folder of the splits")
    parser.add_argument("--repeat", type=int, default=4, help="times the corpus is taken")
    parser.add_argument("--rounds", type=int, default=3, help="times each case is measured")
    parser.add_argument("--memory_utterances", type=int, help="measure memory instead, on this many")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if flags.memory_utterances:
        _measure_memory(flags.memory_utterances)
        return

    begin = time.monotonic()
    corpus = [utterance for split in SPLITS for utterance in read_librispeech(flags.input, split)]
    listing_secs = time.monotonic() - begin
    print(f"list: {len(corpus)} utterances, {len(corpus) / listing_secs:,.0f} utterances/s (headers, 8 threads)")
    utterances = [
        dataclasses.replace(utterance, utterance_id=f"{utterance.utterance_id}-{number}")
        for number in range(flags.repeat)
        for utterance in corpus
    ]
    read_mb = sum(os.path.getsize(utterance.audio_filepath) for utterance in utterances) / 1e6
    secs = sum(utterance.duration_secs for utterance in utterances)
    print(f"write: {len(utterances)} utterances, {secs / 3600:.2f} h, {read_mb:,.0f} MB of FLAC")

    with tempfile.TemporaryDirectory() as folder:
        print(f"start: {_measure_start(corpus[:1], Path(folder)):.1f} s for the command on one utterance")
        _write(utterances[:8], Path(folder, "warm"), "pcm16", 1)
        _write(utterances[:8], Path(folder, "warm"), "pcm16", 2)
        best: dict[tuple[str, int], tuple[float, float]] = {}
        for number in range(flags.rounds):
            for payload, num_workers in CASES:
                measured = _write(utterances, Path(folder, "out"), payload, num_workers)
                best[payload, num_workers] = min(best.get((payload, num_workers), measured), measured)
                load = os.getloadavg()[0]
                print(f"round {number + 1}: {payload}, {num_workers}: {measured[0]:.1f} s, load {load:.1f}", flush=True)
    print("\n| payload | processes | utterances/s | MB/s read | MB/s written | audio-s/s | speed-up | MB an hour |")
    print("|---|---|---|---|---|---|---|---|")
    for (payload, num_workers), (wall, written_mb) in best.items():
        rate = len(utterances) / wall
        print(
            f"| {payload} | {num_workers} | {rate:,.0f} | {read_mb / wall:,.0f} | {written_mb / wall:,.0f} | "
            f"{secs / wall:,.0f} | {best[payload, 1][0] / wall:.2f} | {written_mb / secs * 3600:.0f} |"
        )


def _write(utterances: list[Utterance], output: Path, payload: str, num_workers: int) -> tuple[float, float]:
    """Returns the seconds and the megabytes written."""
    begin = time.monotonic()
    write_tfrecords(
        utterances=utterances, output=output, num_shards=8, payload=payload, num_workers=num_workers, progress=False
    )
    wall = time.monotonic() - begin
    written_mb = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    shutil.rmtree(output)
    return wall, written_mb


def _measure_start(utterances: list[Utterance], folder: Path) -> float:
    write_jsonl(folder / "one.jsonl", utterances)
    argv = ["--format=jsonl", f"--input={folder / 'one.jsonl'}", f"--output={folder / 'one'}"]
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "data.prepare", *argv], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def _measure_memory(count: int) -> None:
    print("| when | parent's memory, MB |\n|---|---|", flush=True)
    print(f"| modules loaded | {_resident_mb():.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.flac")
        soundfile.write(path, np.zeros(200_000, np.int16), 16000)
        utterances = []
        for number in range(count):
            name, text = f"1034-121119-{number:07d}", (f"{number} " + "WORD AND " * 22)[:185]
            utterances.append(Utterance(name, str(path), text, 200_000, 16000, f"{number % 2000}"))
        print(f"| {count} utterances listed | {_resident_mb():.0f} |", flush=True)
        begin = time.monotonic()
        made = write_tfrecords(
            utterances=utterances, output=os.path.join(folder, "out"), text_normalization="none", runner=_write_notes
        )
        print(f"| the largest it was | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} |")
        size = os.path.getsize(os.path.join(folder, "out", "index.json"))
        print(f"{made.num_shards} shards, index of {size / 1e6:.0f} MB, {time.monotonic() - begin:.0f} s without audio")


def _write_notes(tasks: Sequence[ShardTask], *, folder: str, lock: Lock, bar: tqdm, max_bad: int) -> None:
    """Writes notes without audio, as a `data.shards.preparation.Runner`."""
    for number, task in enumerate(tasks):
        if number % (len(tasks) // 4) == 0:
            print(f"| {number} of {len(tasks)} shards done | {_resident_mb():.0f} |", flush=True)
        rows = range(len(task.utterances))
        columns: dict[str, list[Any]] = {
            "utterance_id": [utterance.utterance_id for utterance in task.utterances],
            "speaker_id": [utterance.speaker_id for utterance in task.utterances],
            "text": list(task.texts),
            "num_samples": [utterance.num_samples for utterance in task.utterances],
            "offset": [400_250 * row for row in rows],
            "length": [400_250 for _ in rows],
            "crc32": [zlib.crc32(str(row).encode()) for row in rows],
        }
        note = {"fingerprint": task.fingerprint, "num_bytes": 0, "sha256": "0" * 64, "num_encoded": len(rows)}
        write_text_atomic(task.note_path, json.dumps({**note, "skipped": {}, "columns": columns}))


def _resident_mb() -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e3 if found else 0.0


if __name__ == "__main__":
    main()
