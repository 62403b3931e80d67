"""Measures the errors of word start times, on digits joined with known boundaries.

    python -m benchmarks.word_timestamps --checkpoint=WORKDIR [--corpus=../shared/corpora/fsdd] [--speakers=yweweler]

Recordings of one speaker are joined, five digits per row, with 0.1 s of silence between them. The start of a word is
defined in two ways: where its recording starts, and where its energy first exceeds a hundredth (-20 dB) of that of its
loudest 10 ms. Transcribed words are aligned with the digits by edit distance, and the correct ones are compared. Forced
alignment, which knows the text, places all of them. Results: docs/results/0153.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import soundfile

from benchmarks.served import ROOT
from data.audio.decoding import SAMPLE_RATE, load_audio

DIGITS_OF_A_ROW = 5
GAP_SECS = 0.1
_ONSET_RATIO = 0.01  # ratio of the energy of the loudest 10 ms
_ONSET_SAMPLES = SAMPLE_RATE // 100


def find_onset(waveform: np.ndarray) -> float:
    """Returns the time (s) at which the energy first exceeds a hundredth of that of the loudest 10 ms."""
    blocks = waveform[: len(waveform) // _ONSET_SAMPLES * _ONSET_SAMPLES].reshape(-1, _ONSET_SAMPLES)
    energies = np.square(blocks - waveform.mean()).mean(axis=1)
    return float(np.argmax(energies > _ONSET_RATIO * energies.max()) * _ONSET_SAMPLES / SAMPLE_RATE)


def write_rows(corpus: Path, speakers: Sequence[str], folder: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    """Joins recordings to rows, and writes them as NAME.wav with NAME.txt.

    Returns:
        Name -> words and float [N, 2], the start and the onset of each word in seconds.
    """
    manifest = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = {}
    for speaker in speakers:
        utterances = [line for line in manifest if line["speaker"] == speaker]
        np.random.default_rng(0).shuffle(utterances)  # type: ignore[arg-type]
        for first in range(0, len(utterances) - DIGITS_OF_A_ROW + 1, DIGITS_OF_A_ROW):
            texts, starts, pieces, position = [], [], [np.zeros(0, np.float32)], 0.0
            for utterance in utterances[first : first + DIGITS_OF_A_ROW]:
                waveform = load_audio(corpus / utterance["audio_filepath"])
                texts.append(utterance["text"])
                starts.append((position, position + find_onset(waveform)))
                pieces += [waveform, np.zeros(round(GAP_SECS * SAMPLE_RATE), np.float32)]
                position += len(waveform) / SAMPLE_RATE + GAP_SECS
            name = f"{speaker}-{first:03d}"
            soundfile.write(folder / f"{name}.wav", np.concatenate(pieces), SAMPLE_RATE)
            (folder / f"{name}.txt").write_text(" ".join(texts))
            rows[name] = texts, np.array(starts)
    return rows


def differences(words: Sequence[str], starts: np.ndarray, found: Sequence[dict]) -> list[np.ndarray]:
    """Returns the found minus the known starts, [2] each, of the correct words."""
    heard = [word["text"] for word in found]
    if not heard:
        return []
    pairs = jiwer.process_words(" ".join(words), " ".join(heard)).alignments[0]
    return [
        found[chunk.hyp_start_idx + offset]["start"] - starts[chunk.ref_start_idx + offset]
        for chunk in pairs
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, 1 if the median error of transcribed starts exceeds 60 ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="workdir of a run")
    parser.add_argument("--corpus", default="../shared/corpora/fsdd", help="folder with manifest.jsonl")
    parser.add_argument("--speakers", default="yweweler", help="with commas")
    flags = parser.parse_args(argv)
    medians = {}
    for speaker in flags.speakers.split(","):
        with tempfile.TemporaryDirectory(prefix="earshot-timestamps-") as name:
            folder = Path(name)
            (folder / "rows").mkdir()
            rows = write_rows(Path(flags.corpus), [speaker], folder / "rows")
            source = [f"--checkpoint={flags.checkpoint}", f"--inputs={folder / 'rows'}"]
            _run("--mode=transcribe", *source, f"--output={folder / 'out.jsonl'}")
            _run("--mode=align", *source, f"--output={folder / 'aligned'}")
            for way, path in (("transcribed", "out.jsonl"), ("aligned", "aligned/alignments.jsonl")):
                found: list[np.ndarray] = []
                for record in map(json.loads, (folder / path).open(encoding="utf-8")):
                    words, starts = rows[Path(record["audio_filepath"]).stem]
                    found += differences(words, starts, record["words"])
                errors = 1000 * np.array(found)
                num_words = sum(len(words) for words, _ in rows.values())
                print(f"{speaker}, {way}: {len(errors)} of {num_words} words")
                for column, against in enumerate(("beginning", "onset")):
                    part = errors[:, column]
                    absolute = np.abs(part)
                    medians[way, against] = max(medians.get((way, against), 0.0), float(np.median(absolute)))
                    print(
                        f"  against the {against:9}: median of the absolute error {np.median(absolute):.0f} ms, "
                        f"90 % within {np.quantile(absolute, 0.9):.0f} ms; median error {np.median(part):+.0f} ms"
                    )
    return int(medians["transcribed", "beginning"] > 60)


if __name__ == "__main__":
    sys.exit(main())
