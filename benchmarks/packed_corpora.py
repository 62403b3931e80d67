"""Measures how fast corpora of each layout are opened and read at random, and the memory that this takes.

    python -m benchmarks.packed_corpora [--utterances=20000] [--reads=4000] [--folder=DIR] [--rounds=2]

It writes the same utterances of 0.5 to 1.5 s of noise, as FLAC, in every layout, and measures each in a process of its
own: rows/s of opening (headers of all recordings), rows/s of reading waveforms in random order with as many threads as
cores, and the memory of the process before and after: without that of mapped files, which the system can take back, and
with it. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data.open_corpus import open_source

# Layout -> its format, and its input below the folder.
KINDS = {
    "jsonl": ("jsonl", "files/train.jsonl"),
    "parquet, groups of 100": ("parquet", "hub"),
    "parquet, one group": ("parquet", "pandas.parquet"),
    "arrow": ("arrow", "arrow"),
    "webdataset": ("webdataset", "tars"),
}
_FILES = 4  # of each layout that has several


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--utterances", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=4_000, help="waveforms to read at random")
    parser.add_argument("--folder", default="", help="where the corpora are or will be; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=2, help="times each layout is measured; the best counts")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(measure(flags.one, Path(flags.folder), flags.reads)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary)
        if not (folder / "done").exists():
            write_corpora(folder, flags.utterances)
            (folder / "done").touch()
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.packed_corpora", f"--one={kind}", f"--folder={folder}"]
            runs = [
                json.loads(
                    subprocess.run([*command, f"--reads={flags.reads}"], check=True, stdout=subprocess.PIPE).stdout
                )
                for _ in range(flags.rounds)
            ]
            found = runs[0] | {name: max(run[name] for run in runs) for name in runs[0]}
            print(
                f"{kind} ({found['size_mb']:,.0f} MB): opened at {found['open_rows']:,.0f} rows/s, read at random at "
                f"{found['read_rows']:,.0f} rows/s; memory {found['start_mb']:.0f} MB before, "
                f"{found['open_mb']:.0f} MB open, {found['own_mb']:.0f} MB after reading; "
                f"{found['peak_mb']:.0f} MB at most with mapped files"
            )


def make_recordings(count: int) -> Iterator[bytes]:
    """Yields FLAC files of 0.5 to 1.5 s of noise at 16 kHz."""
    random = np.random.default_rng(0)
    for _ in range(count):
        samples = random.normal(0, 60, int(random.integers(8_000, 24_000))).astype(np.int16)
        content = io.BytesIO()
        soundfile.write(content, samples, 16_000, format="FLAC")
        yield content.getvalue()


def write_corpora(folder: Path, count: int) -> None:
    """Writes the corpus in every layout; no more than a part of it is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("files/clips", "hub/data", "arrow", "tars"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("audio", audio), ("text", pa.string()), ("speaker_id", pa.string()), ("id", pa.string())])
    recordings = make_recordings(count)
    written = 0
    with open(folder / "files/train.jsonl", "w", encoding="utf-8") as manifest:
        for number in range(_FILES):
            hub = pq.ParquetWriter(folder / f"hub/data/train-{number:05d}-of-{_FILES:05d}.parquet", schema)
            arrow = pa.ipc.new_stream(str(folder / f"arrow/train-{number:05d}-of-{_FILES:05d}.arrow"), schema)
            with hub, arrow, tarfile.open(folder / f"tars/train-{number:06d}.tar", "w") as tar:
                for start in range(number * count // _FILES, (number + 1) * count // _FILES, 100):
                    rows = []
                    for index in range(start, min(start + 100, (number + 1) * count // _FILES)):
                        name, text, content = f"utt{index:07d}", f"utterance {index} of noise", next(recordings)
                        row = {"audio": {"bytes": content, "path": f"{name}.flac"}, "text": text}
                        rows.append({**row, "speaker_id": str(index % 97), "id": name})
                        (folder / f"files/clips/{name}.flac").write_bytes(content)
                        line = {"audio_filepath": f"clips/{name}.flac", "text": text, "speaker": str(index % 97)}
                        manifest.write(json.dumps(line) + "\n")
                        for suffix, part in (("flac", content), ("txt", text.encode())):
                            member = tarfile.TarInfo(f"{name}.{suffix}")
                            member.size = len(part)
                            tar.addfile(member, io.BytesIO(part))
                    table = pa.Table.from_pylist(rows, schema=schema)
                    hub.write_table(table)
                    arrow.write_table(table)
                    written += len(rows)
    whole = pq.read_table(folder / "hub")
    pq.write_table(whole, folder / "pandas.parquet")
    assert written == whole.num_rows == count


def measure(kind: str, folder: Path, reads: int) -> dict[str, Any]:
    """Returns rows/s and memory of one layout."""
    import pyarrow.parquet  # noqa: F401 - its memory is no part of the corpus

    format, input = KINDS[kind]
    start_mb = own_mb()
    begin = time.monotonic()
    source = open_source(format=format, input=str(folder / input))
    open_secs = time.monotonic() - begin
    open_mb = own_mb()
    chosen = np.random.default_rng(1).integers(0, len(source.utterance_ids), reads)
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        num_samples = sum(pool.map(lambda index: len(source.read_waveform(int(index))), chosen))
    read_secs = time.monotonic() - begin
    assert num_samples == source.num_samples[chosen].sum()
    files = [folder / input] if (folder / input).suffix == ".parquet" else [*(folder / input).parent.rglob("*")]
    if (folder / input).is_dir():
        files = [*(folder / input).rglob("*")]
    return {
        "open_rows": len(source.utterance_ids) / open_secs,
        "read_rows": reads / read_secs,
        "start_mb": start_mb,
        "open_mb": open_mb,
        "own_mb": own_mb(),
        "peak_mb": status_mb("VmHWM"),
        "size_mb": sum(path.stat().st_size for path in files if path.is_file()) / 1e6,
    }


def own_mb() -> float:
    """Returns the memory of this process without mapped files, in 10^6 bytes."""
    return status_mb("RssAnon")


def status_mb(name: str) -> float:
    """Returns a value of the status of this process, in 10^6 bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
