"""Checks that all forms of a model give the same transcripts, and that a server survives bad clients.

    python -m benchmarks.same_text --checkpoint=WORKDIR --inputs=FOLDER [--limit=100] [--rounds=3]

It transcribes the recordings of a folder from the workdir; from the weights after conversion to Hugging Face's format
and back; from the exported SavedModel; with its TFLite float32 and ONNX files; and over HTTP, from workdir and export,
as uploads and in TensorFlow Serving's JSON. While the uploads are served, other clients send files that are not audio,
bodies that are too large or incomplete, or disconnect. The exit status is 1 if a transcript differs, a bad client gets
no error, or the server leaks memory. Results: docs/results/0152.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from benchmarks.served import ROOT, WHOLE, Served, serving
from data.audio.decoding import load_audio
from data.text.tokenizer import load_tokenizer
from engine.inference.export.portable import FILES, load_portable
from engine.inference.words import find_words
from models.ctc.alignment import greedy_spans

_NUM_CLIENTS = 8
_MAX_BODY_MB = 1
# Bad clients and the status that each gets; 0 = it disconnects before.
_BAD = {"no audio": 400, "too large": 413, "stops half-way": 408, "leaves": 0}
_ROWS_OF_A_REQUEST = 4


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")


def _transcribe(checkpoint: str, paths: Sequence[str], output: Path) -> list[str]:
    _run(
        "run.py", "--mode=transcribe", f"--checkpoint={checkpoint}", f"--inputs={','.join(paths)}",
        f"--output={output}", WHOLE,
    )  # fmt: skip
    found = {record["audio_filepath"]: record["text"] for record in map(json.loads, output.open(encoding="utf-8"))}
    return [found[path] for path in paths]


def _portable(export: Path, name: str, paths: Sequence[str]) -> list[str]:
    run = load_portable(export / FILES[name], name)
    tokenizer = load_tokenizer(export / "vocab.json")
    # Logits serve as well, because the softmax does not change the argmax.
    spans = [greedy_spans(run(load_audio(path))) for path in paths]
    return [" ".join(word.text for word in find_words(found, tokenizer, 1.0)) for found in spans]


def _uploads(served: Served, paths: Sequence[str], num_bad: int) -> tuple[list[str], list[str]]:
    """Returns the transcripts, and the faults with `num_bad` clients of each bad kind at the same time."""

    def good(path: str) -> str:
        status, answer = served.ask(Path(path).read_bytes())
        return answer["text"] if status == 200 else f"{status}: {answer['error']}"

    def bad(kind: str) -> int:
        if kind == "no audio":
            return served.ask(b"this is no audio at all")[0]
        if kind == "too large":
            return served.ask(bytes(_MAX_BODY_MB * 1_000_000 + 1))[0]
        return served.stop_sending(answer=kind == "stops half-way")

    with ThreadPoolExecutor(_NUM_CLIENTS) as goods, ThreadPoolExecutor(_NUM_CLIENTS) as bads:
        kinds = list(_BAD) * num_bad
        statuses = bads.map(bad, kinds)
        texts = list(goods.map(good, paths))
        faults = [f"{kind}: {status}" for kind, status in zip(kinds, statuses, strict=True) if status != _BAD[kind]]
    return texts, faults


def _predictions(served: Served, paths: Sequence[str]) -> list[str]:
    texts: list[str] = []
    for start in range(0, len(paths), _ROWS_OF_A_REQUEST):
        waveforms = [load_audio(path).tolist() for path in paths[start : start + _ROWS_OF_A_REQUEST]]
        width = max(map(len, waveforms))
        instances = [{"waveform": row + [0.0] * (width - len(row)), "lengths": len(row)} for row in waveforms]
        status, answer = served.ask(json.dumps({"instances": instances}).encode(), "/v1/models/earshot:predict")
        if status != 200:
            raise RuntimeError(f"{status}: {answer['error']}")
        texts += [row["text"] for row in answer["predictions"]]
    return texts


def compare(checkpoint: str, paths: Sequence[str], *, rounds: int, folder: Path) -> list[str]:
    """Prints a line for each way and returns the faults.

    Args:
        checkpoint: Workdir of a native model.
        paths: Recordings shorter than a window.
        rounds: Number of times to upload all recordings, at least two.
        folder: Empty folder for temporary files.
    """
    faults: list[str] = []
    wanted = _transcribe(checkpoint, paths, folder / "checkpoint.jsonl")
    num_words = sum(len(text.split()) for text in wanted)
    print(f"{len(paths)} recordings, {num_words} words, {len(set(wanted))} different texts from the checkpoint")
    if num_words < len(paths) / 2:
        faults.append(f"{num_words} words are too few to show anything")

    def expect(way: str, texts: Sequence[str]) -> None:
        others = [number for number, text in enumerate(texts) if text != wanted[number]]
        print(f"{way:44} {len(texts) - len(others)} of {len(texts)} the same")
        faults.extend(f"{way}: {paths[number]}: {texts[number]!r}, not {wanted[number]!r}" for number in others)

    hugging_face, back, export = folder / "hf", folder / "back", folder / "export"
    _run("-m", "models.convert", f"--input={checkpoint}", f"--output={hugging_face}", "--to_hf")
    _run("-m", "models.convert", f"--input={hugging_face}", f"--output={back}")
    expect("Hugging Face and back", _transcribe(str(back), paths, folder / "back.jsonl"))
    formats = ("tflite_float32", "onnx")
    _run(
        "run.py", "--mode=export", f"--checkpoint={checkpoint}", f"--inputs={','.join(paths[:8])}",
        f"--output={export}", f"--export_formats={','.join(formats)}",
    )  # fmt: skip
    expect("SavedModel", _transcribe(str(export), paths, folder / "export.jsonl"))
    for name in formats:
        expect(name, _portable(export, name, paths))
    limits = {"max_body_mb": _MAX_BODY_MB, "body_timeout_secs": 2, "max_pending": 4 * _NUM_CLIENTS}
    with serving(checkpoint, **limits) as served:
        of_server = psutil.Process(served.process.pid)
        sizes = []
        start_secs = time.monotonic()
        for number in range(rounds):
            texts, others = _uploads(served, paths, num_bad=max(len(paths) // 8, 1))
            expect(f"HTTP from the workdir, under siege, {number + 1}", texts)
            faults += others
            time.sleep(0.5)  # time for the server to notice disconnected clients
            sizes.append((of_server.num_fds(), of_server.num_threads(), of_server.memory_info().rss))
        secs = time.monotonic() - start_secs
        num_bad = rounds * len(_BAD) * max(len(paths) // 8, 1)
        print(f"{rounds * len(paths)} uploads beside {num_bad} bad clients in {secs:.1f} s")
        for num_files, num_threads, memory in sizes:
            print(f"  after a round: {num_files} files, {num_threads} threads, {memory / 1e6:.0f} MB")
        expect("TensorFlow Serving's JSON from the workdir", _predictions(served, paths))
        first, last = sizes[0], sizes[-1]
        if last[0] > first[0] + 3 or last[1] > first[1] + 3 or last[2] > 1.1 * first[2]:
            faults.append(f"the server grows: files, threads and bytes are {first}, then {last}")
        with ThreadPoolExecutor(_NUM_CLIENTS) as pool:
            waiting = [pool.submit(served.ask, Path(path).read_bytes()) for path in paths[:_NUM_CLIENTS]]
            while not any(future.done() for future in waiting):
                time.sleep(0.001)
            served.terminate()
            answers = [future.result() for future in waiting if future.exception() is None]
        # A client after the signal is refused; an accepted one gets its answer.
        late = [answer for status, answer in answers if status != 200]
        if not set(answer["text"] for status, answer in answers if status == 200) <= set(wanted) or any(
            "going away" not in answer["error"] for answer in late
        ):
            faults.append(f"SIGTERM: {answers}")
    print(f"SIGTERM: {len(answers) - len(late)} requests answered, exit status {served.exit_status}")
    if served.exit_status != 143:
        faults.append(f"the server ended with {served.exit_status}")
    with serving(str(export)) as served:
        expect("HTTP from the SavedModel", _uploads(served, paths, num_bad=0)[0])
        expect("TensorFlow Serving's JSON from the SavedModel", _predictions(served, paths))
    return faults


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, 1 if there are faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="workdir of a run")
    parser.add_argument("--inputs", required=True, help="folder of recordings, searched to the bottom")
    parser.add_argument("--limit", type=int, default=100, help="most recordings")
    parser.add_argument("--rounds", type=int, default=3, help="times that all are uploaded")
    flags = parser.parse_args(argv)
    paths = sorted(str(path) for path in Path(flags.inputs).rglob("*") if path.suffix in (".wav", ".flac"))
    with tempfile.TemporaryDirectory(prefix="earshot-same-text-") as folder:
        faults = compare(flags.checkpoint, paths[: flags.limit], rounds=flags.rounds, folder=Path(folder))
    for fault in faults:
        print(fault)
    print("all the same" if not faults else f"{len(faults)} differences")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
