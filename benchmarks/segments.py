"""Compares segments of long recordings with the same audio as single files: index, resume, throughput and memory.

    python -m benchmarks.segments measure --output=FOLDER [--num_files=1000]
    python -m benchmarks.segments draw --output=FOLDER

`measure` writes FOLDER/corpus, 1,000 recordings of 340 s with 100 segments each, and removes it at the end. Ten of them
are made, of a tone that wanders and a little noise; the others are hard links, because as copies they would fill 6 GB.
So all files are in the page cache, and the time of a disk is not measured. A hundredth, a tenth and all of it is
opened in a process of its own, as single FLAC files, as a JSON-lines manifest with offsets, as a Kaldi data folder and
as Lhotse's cuts. `draw` makes the table segments.md and the picture segments.svg.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from benchmarks import pictures, protocol
from engine.common import files

RATE = 16_000
LAYOUTS = {
    "single files": "jsonl",
    "jsonl with offsets": "jsonl",
    "kaldi": "kaldi",
    "lhotse": "lhotse",
}
_NUM_MADE = 10
_SEGMENTS = 100
_GAP_SECS = 0.4
_PARTS = (100, 10, 1)  # a corpus of one recording in so many
_MEMORY_EVERY = 50  # batches
WORDS = ("A", "WORD", "OR", "TWO", "THAT", "STAND", "FOR", "WHAT", "PEOPLE", "READ", "ALOUD")


class Made(NamedTuple):
    """A long recording that was made, and its segments."""

    long: bytes
    single: list[bytes]
    starts: list[float]
    secs: list[float]
    texts: list[str]


def make_recording(number: int, num_segments: int = _SEGMENTS) -> Made:
    """Makes a recording and cuts it into single files."""
    rng = np.random.default_rng(number)
    lengths = rng.integers(200, 401, num_segments) / 100
    starts = np.round(np.cumsum(lengths + _GAP_SECS) - lengths, 2)
    times = np.arange(round((starts[-1] + lengths[-1] + _GAP_SECS) * RATE)) / RATE
    tone = 0.05 * np.sin(2 * np.pi * (150 * times + 20 * np.sin(times)))
    samples = np.round(32768 * tone + rng.normal(0, 4, len(times))).astype(np.int16)
    single = []
    for start, secs in zip(starts, lengths, strict=True):
        begin = round(start * RATE)
        single.append(encode(samples[begin : begin + round(secs * RATE)]))
    texts = [" ".join(rng.choice(WORDS, size=max(1, int(2.5 * secs)))) for secs in lengths]
    return Made(encode(samples), single, starts.tolist(), lengths.tolist(), texts)


def encode(samples: np.ndarray) -> bytes:
    """Encodes int16 samples as FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC")
    return buffer.getvalue()


def write_corpus(folder: Path, num_files: int, num_segments: int = _SEGMENTS) -> None:
    """Writes the recordings once as long files and once as single files."""
    made = [make_recording(number, num_segments) for number in range(min(_NUM_MADE, num_files))]
    (folder / "long").mkdir(parents=True)
    for number in range(num_files):
        original = number % len(made)
        (folder / f"single/{number:05d}").mkdir(parents=True)
        contents = {"long/{:05d}.flac": made[original].long}
        contents |= {f"single/{{:05d}}/{place:03d}.flac": one for place, one in enumerate(made[original].single)}
        for name, content in contents.items():
            if number == original:
                (folder / name.format(number)).write_bytes(content)
            else:
                os.link(folder / name.format(original), folder / name.format(number))
    for part in _PARTS:
        if num_files // part:
            write_lists(folder, f"{num_files // part}", made, num_files // part)


def write_lists(folder: Path, name: str, made: Sequence[Made], num_files: int) -> None:
    """Writes the lists of the first recordings in every layout: FOLDER/NAME-LAYOUT."""
    kaldi = folder / f"{name}-kaldi"
    kaldi.mkdir()
    lines: dict[Path, list[str]] = {
        folder / f"{name}-single files": [],
        folder / f"{name}-jsonl with offsets": [],
        folder / f"{name}-lhotse": [],
        **{kaldi / item: [] for item in ("wav.scp", "segments", "text", "utt2spk")},
    }
    single, offsets, cuts, *of_kaldi = lines.values()
    for number in range(num_files):
        one = made[number % len(made)]
        of_kaldi[0].append(f"r{number:05d} long/{number:05d}.flac")
        for place, (start, secs, text) in enumerate(zip(one.starts, one.secs, one.texts, strict=True)):
            fields = {"utterance_id": f"r{number:05d}-{place:03d}", "text": text, "speaker": f"r{number:05d}"}
            where = {"audio_filepath": f"single/{number:05d}/{place:03d}.flac", "duration": secs}
            single.append(json.dumps({**fields, **where}))
            where = {"audio_filepath": f"long/{number:05d}.flac", "offset": start, "duration": secs}
            offsets.append(json.dumps({**fields, **where}))
            cuts.append(json.dumps(_cut(number, place, one)))
            of_kaldi[1].append(f"{fields['utterance_id']} r{number:05d} {start:.2f} {start + secs:.2f}")
            of_kaldi[2].append(f"{fields['utterance_id']} {text}")
            of_kaldi[3].append(f"{fields['utterance_id']} {fields['speaker']}")
    for path, written in lines.items():
        path.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")


def _cut(number: int, place: int, one: Made) -> dict[str, Any]:
    """Returns a segment as Lhotse writes it."""
    name, recording, secs = f"r{number:05d}-{place:03d}", f"r{number:05d}", one.secs[place]
    num_samples = round((one.starts[-1] + one.secs[-1] + _GAP_SECS) * RATE)
    spoken = {"id": name, "recording_id": recording, "start": 0.0, "duration": secs, "channel": 0}
    source = {"type": "file", "channels": [0], "source": f"long/{number:05d}.flac"}
    return {
        "id": name,
        "start": one.starts[place],
        "duration": secs,
        "channel": 0,
        "supervisions": [{**spoken, "text": one.texts[place], "speaker": recording}],
        "recording": {
            "id": recording,
            "sources": [source],
            "sampling_rate": RATE,
            "num_samples": num_samples,
            "duration": num_samples / RATE,
        },
        "type": "MonoCut",
    }


def read_corpus(layout: str, path: str, *, num_batches: int = 0) -> dict[str, Any]:
    """Measures, in a process of its own, a corpus's index, resume, throughput and memory.

    Args:
        layout: One of `LAYOUTS`.
        path: List of the corpus.
        num_batches: Batches to read; 0 = an epoch.
    """
    import tensorflow as tf

    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    before, begin = _resident_bytes(), (time.monotonic(), time.process_time())
    data = build_train_data(
        tokenizer=load_tokenizer(""), text_normalization="librispeech", format=LAYOUTS[layout], input=path,
        global_batch_size=32, seed=0, **reading_options(),
    )  # fmt: skip
    opened = (time.monotonic(), time.process_time())
    indexed = _resident_bytes()
    resumed = time.monotonic()
    iterator = iter(data.dataset(tf.distribute.InputContext(), data.updates_per_epoch // 2))
    next(iterator)
    first_batch_secs = time.monotonic() - resumed
    start, samples, memory = (time.monotonic(), time.process_time()), 0, []
    for number in range(num_batches or data.updates_per_epoch):
        samples += int(next(iterator)["waveform_lengths"].numpy().sum())
        if number % _MEMORY_EVERY == 0:
            memory.append(_resident_bytes())
    wall_secs, cpu_secs = time.monotonic() - start[0], time.process_time() - start[1]
    return {
        "layout": layout,
        "num_utterances": data.num_utterances,
        "index_secs": opened[0] - begin[0],
        "index_cpu_secs": opened[1] - begin[1],
        "first_batch_secs": first_batch_secs,
        "audio_secs_per_sec": samples / RATE / wall_secs,
        "audio_secs_per_cpu_sec": samples / RATE / cpu_secs,
        "index_bytes": indexed - before,
        "memory_bytes": memory,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "num_open_files": len(os.listdir("/proc/self/fd")),
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _measure(output: Path, num_files: int, num_batches: int) -> None:
    corpus = output / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    try:
        write_corpus(corpus, num_files)
        points = list(_measure_all(corpus, num_files, num_batches))
    finally:
        shutil.rmtree(corpus, ignore_errors=True)
    files.write_json_atomic(output / "segments.json", {"num_files": num_files, "points": points})


def _measure_all(corpus: Path, num_files: int, num_batches: int) -> Iterator[dict[str, Any]]:
    for part in _PARTS:
        for layout in LAYOUTS if num_files // part else ():
            path = str(corpus / f"{num_files // part}-{layout}")
            command = [sys.executable, "-m", "benchmarks.segments", "read", f"--layout={layout}", f"--input={path}"]
            command.append(f"--num_batches={num_batches}")
            answer = subprocess.run(command, cwd=protocol.ROOT, check=True, stdout=subprocess.PIPE, text=True)
            point = json.loads(answer.stdout.splitlines()[-1])
            print({**point, "memory_bytes": point["memory_bytes"][::20]}, flush=True)
            yield point


def table(records: Mapping[str, Any]) -> str:
    """Returns the records as a Markdown table."""
    lines = [
        "| layout | utterances | index, s | its processor-s | first batch after a resume, s | audio-s/s | audio-s per "
        "processor-s | index, MiB | memory over the epoch, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for point in records["points"]:
        memory = [number / 2**20 for number in point["memory_bytes"][1:] or point["memory_bytes"]]
        lines.append(
            f"| {point['layout']} | {point['num_utterances']:,} | {point['index_secs']:.2f} | "
            f"{point['index_cpu_secs']:.2f} | {point['first_batch_secs']:.2f} | {point['audio_secs_per_sec']:,.0f} | "
            f"{point['audio_secs_per_cpu_sec']:,.0f} | {point['index_bytes'] / 2**20:.0f} | "
            f"{min(memory):.0f} to {max(memory):.0f} |"
        )
    return "\n".join(lines)


def draw(records: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws the processor-seconds of the index, the throughput, and the memory over the epoch of the largest corpus."""
    colors = dict(zip(LAYOUTS, ("black", pictures.DARK, pictures.LIGHT, "#c0504d"), strict=True))
    largest = max(point["num_utterances"] for point in records["points"])
    with pictures.panels(path, count=3, width=2.9, height=2.6) as (index, speed, memory):
        for layout in LAYOUTS:
            points = [point for point in records["points"] if point["layout"] == layout]
            counts = [point["num_utterances"] for point in points]
            style = {"color": colors[layout], "marker": "o", "markersize": 3, "label": layout}
            style["linestyle"] = "--" if layout == "single files" else "-"
            index.loglog(counts, [point["index_cpu_secs"] for point in points], **style)
            speed.semilogx(counts, [point["audio_secs_per_cpu_sec"] for point in points], **style)
            found = next(point["memory_bytes"] for point in points if point["num_utterances"] == largest)
            batches = [_MEMORY_EVERY * number for number in range(len(found))]
            style["marker"] = ""
            memory.plot(batches, [number / 2**20 for number in found], **style)
        for panel, what in ((index, "index, processor-s"), (speed, "audio-s per processor-s")):
            panel.set_xlabel("utterances")
            panel.set_ylabel(what)
        speed.set_ylim(bottom=0)
        memory.set_ylim(bottom=0)
        memory.set_xlabel(f"batches, of {largest:,} utterances")
        memory.set_ylabel("resident memory, MiB")
        index.legend(fontsize=6)
        for panel in (index, speed, memory):
            panel.grid(alpha=0.3)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.segments", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["measure", "draw", "read"])
    parser.add_argument("--output", default="segments", help="folder of the corpus, the records and the picture")
    parser.add_argument("--num_files", type=int, default=1000, help="long recordings, each of 100 segments")
    parser.add_argument("--num_batches", type=int, default=0, help="batches to read (default: those of an epoch)")
    parser.add_argument("--layout", default="", choices=["", *LAYOUTS], help="of read, which measures one corpus")
    parser.add_argument("--input", default="", help="of read")
    flags = parser.parse_args(argv)
    if flags.what == "read":
        print(json.dumps(read_corpus(flags.layout, flags.input, num_batches=flags.num_batches)))
    elif flags.what == "measure":
        _measure(Path(flags.output), flags.num_files, flags.num_batches)
    else:
        folder = Path(flags.output)
        records = json.loads((folder / "segments.json").read_text(encoding="utf-8"))
        files.write_text_atomic(folder / "segments.md", table(records) + "\n")
        draw(records, folder / "segments.svg")
        print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
