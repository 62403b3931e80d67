"""Does an hour in one file read like its utterances one by one, and in what memory?

    python -m benchmarks.long_recording --checkpoint=WORKDIR [--corpus=../shared/corpora/LibriSpeech]
        [--split=train-clean-5] [--minutes=60] [--window_secs=30]

Utterances of a LibriSpeech tree, or of a JSON-lines manifest, are joined to one recording, 0.3 s of silence between
them; where they are too few they come again, in another order each time. Its words, found in overlapping windows, are
paired with those of the utterances transcribed alone by the edit that costs least. What differs is counted apart within
half a second of where two windows meet. Then the same beside windows of twice the length: other windows, the same
surroundings. Memory is the most that `--mode=transcribe` of the whole recording and of its first ten minutes take, as
processes of their own.
docs/results/0054 keeps what it said.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
import soundfile

from benchmarks.served import ROOT
from data.audio.decoding import SAMPLE_RATE, load_audio, normalize_waveform
from data.audio.streaming import duration_samples, stream_audio
from data.corpus.manifest import Utterance, read_utterances
from data.text.tokenizer import load_tokenizer
from engine.inference.loading import load_transcriber
from engine.inference.transcriber import Transcriber
from engine.protocols import Components
from models import build
from models.ctc import alignment

GAP_SECS = 0.3
NEAR_SECS = 0.5
_NUM_SHOWN = 20  # differences elsewhere that are printed
_NOT_USED: Any = None


def _parts() -> Components:
    return Components(
        build_tokenizer=load_tokenizer,
        build_train_data=_NOT_USED,
        build_eval_data=_NOT_USED,
        find_architecture=_NOT_USED,
        build_model=build.build_model,
        count_samples=duration_samples,
        stream_audio=stream_audio,
        normalize_waveform=normalize_waveform,
        find_reference=lambda path, text_style: None,
        loss_fn=_NOT_USED,
        feasible_fn=_NOT_USED,
        decoder=_NOT_USED,
        span_decoder=alignment.greedy_spans,
        span_graph_decoder=_NOT_USED,
        aligner=_NOT_USED,
        page_environment=_NOT_USED,
    )


class Difference(NamedTuple):
    """Words that two readings do not share.

    Attributes:
        secs: When it is, in the joined recording.
        alone: Words of the utterances alone; empty where only the other reading has some.
        joined: Words of the other reading.
        num_near: How many words (of the longer side) begin within `NEAR_SECS` of a joint.
        num_elsewhere: How many do not.
    """

    secs: float
    alone: tuple[str, ...]
    joined: tuple[str, ...]
    num_near: int
    num_elsewhere: int


def find_differences(
    alone: Sequence[tuple[str, float]], joined: Sequence[tuple[str, float]], joints: Sequence[float]
) -> tuple[int, list[Difference]]:
    """Pairs two readings by the edit that costs least.

    Args:
        alone: Words with their times (s) in the joined recording.
        joined: The other reading.
        joints: Where windows meet (s).

    Returns:
        How many words are equal; and what is not, in order.
    """
    output = jiwer.process_words(" ".join(word for word, _ in alone), " ".join(word for word, _ in joined))
    num_equal = 0
    differences = []
    for chunk in output.alignments[0]:
        sides = (alone[chunk.ref_start_idx : chunk.ref_end_idx], joined[chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            num_equal += len(sides[0])
            continue
        times = [secs for _, secs in max(sides, key=len)]
        num_near = sum(any(abs(joint - secs) <= NEAR_SECS for joint in joints) for secs in times)
        texts = (tuple(word for word, _ in side) for side in sides)
        differences.append(Difference(times[0], *texts, num_near, len(times) - num_near))
    return num_equal, differences


def _report(num_equal: int, differences: Sequence[Difference]) -> str:
    """One line of counts, and those that lie elsewhere."""
    near, elsewhere = sum(d.num_near for d in differences), sum(d.num_elsewhere for d in differences)
    shown = [d for d in differences if d.num_elsewhere][:_NUM_SHOWN]
    lines = [f"{num_equal} equal, {near} differ within {NEAR_SECS} s of a joint, {elsewhere} elsewhere"]
    lines += [f"  {d.secs:8.2f} s: {' '.join(d.alone) or '-'} | {' '.join(d.joined) or '-'}" for d in shown]
    return "\n".join(lines)


def _in_any_order(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """Them all, then shuffled again and again."""
    yield from utterances
    rng = random.Random(0)
    while utterances:
        yield from rng.sample(utterances, len(utterances))


def _peak_memory(checkpoint: str, recording: Path, output: Path) -> tuple[float, float]:
    """Most MB that a process takes to transcribe a recording, and its seconds."""
    command = [sys.executable, "run.py", "--mode=transcribe", f"--checkpoint={checkpoint}", f"--inputs={recording}"]
    start_secs = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--output={output}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    # Not what wait4 says: that begins with the memory of this process, of which the other is a fork.
    peak_kb = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, TypeError):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kb = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak_kb / 1000, time.monotonic() - start_secs


def _read(transcriber: Transcriber, path: Path) -> tuple[list[tuple[str, float]], list[float]]:
    """Words with their times, and where windows meet."""
    pieces = list(transcriber.stream_log_probs(transcriber.stream_audio(str(path))))
    joints = [piece.start_frame * transcriber.secs_per_frame for piece in pieces[1:]]
    return [(word.text, word.start_secs) for word in transcriber.find_words(pieces)], joints


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="workdir of a run")
    parser.add_argument("--corpus", default="../shared/corpora/LibriSpeech", help="tree as LibriSpeech's, or a .jsonl")
    parser.add_argument("--split", default="train-clean-5", help="folder of a tree")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the recording")
    parser.add_argument("--window_secs", type=float, default=30.0, help="as run.py's")
    flags = parser.parse_args(argv)
    transcriber = load_transcriber(parts=_parts(), checkpoint=flags.checkpoint, window_secs=flags.window_secs)
    alone: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="earshot-long-") as name:
        whole, short = Path(name, "whole.wav"), Path(name, "ten.wav")
        paths: list[str] = []
        offsets: list[float] = []
        position, gap = 0, np.zeros(round(GAP_SECS * SAMPLE_RATE), np.float32)
        utterances = (
            read_utterances(format="jsonl", input=flags.corpus)
            if flags.corpus.endswith(".jsonl")
            else read_utterances(format="librispeech", input=flags.corpus, split=flags.split)
        )
        with (
            soundfile.SoundFile(whole, "w", SAMPLE_RATE, 1) as file,
            soundfile.SoundFile(short, "w", SAMPLE_RATE, 1) as first,
        ):
            for utterance in _in_any_order(utterances):
                if position >= flags.minutes * 60 * SAMPLE_RATE:
                    break
                paths.append(str(utterance.audio_filepath))
                offsets.append(position / SAMPLE_RATE)
                samples = np.concatenate([load_audio(utterance.audio_filepath), gap])
                file.write(samples)
                if position < 600 * SAMPLE_RATE:
                    first.write(samples)
                position += len(samples)
        distinct = sorted(set(paths))
        transcripts = transcriber.transcribe_files(distinct, quiet=True).transcripts
        words_of = {path: transcript.words for path, transcript in zip(distinct, transcripts, strict=True)}
        for path, offset in zip(paths, offsets, strict=True):
            alone += [(word.text, offset + word.start_secs) for word in words_of[path]]
        joined, joints = _read(transcriber, whole)
        print(f"{len(paths)} utterances ({len(distinct)} different), {position / SAMPLE_RATE / 60:.1f} minutes")
        print(f"{len(joints)} joints of windows")
        found = find_differences(alone, joined, joints)
        print(f"{len(alone)} words alone, {len(joined)} in the whole:", _report(*found))
        longer = load_transcriber(parts=_parts(), checkpoint=flags.checkpoint, window_secs=2 * transcriber.window_secs)
        others, more_joints = _read(longer, whole)
        found = find_differences(others, joined, [*joints, *more_joints])
        print(f"{len(others)} words in windows of twice the length, {len(more_joints)} joints:", _report(*found))
        for path in (short, whole):
            memory, secs = _peak_memory(flags.checkpoint, path, Path(name, "out.txt"))
            minutes = soundfile.info(path).duration / 60
            print(f"{minutes:.1f} minutes: {memory:.0f} MB at most, {secs:.0f} s with the start of the process")
    return 0


if __name__ == "__main__":
    sys.exit(main())
