"""Compares the transcript of an hour in one file with those of its utterances, and measures the memory.

    python -m benchmarks.long_recording --checkpoint=WORKDIR [--corpus=../shared/corpora/LibriSpeech]
        [--split=train-clean-5] [--minutes=60] [--window_secs=SECS]

Utterances of a LibriSpeech tree or a JSON-lines manifest are joined to one recording with 0.3 s of silence between
them; if they are too few, they are repeated in another order. Its words, found in overlapping windows, are aligned by
edit distance with those of the utterances transcribed alone. Differences within half a second of a window boundary are
counted separately. The same is done with windows of twice the length. Memory is the peak of separate
`--mode=transcribe` processes on the whole recording and on its first ten minutes. Results: docs/results/0154.
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
from data.corpus.manifest import read_utterances
from data.corpus.utterance import Utterance
from data.text.tokenizer import load_tokenizer
from engine.inference.loading import load_transcriber
from engine.inference.transcriber import Transcriber
from engine.protocols import Components
from models import build
from models.ctc import alignment
from models.ctc.word_alignment import align_words

GAP_SECS = 0.3
NEAR_SECS = 0.5
_NUM_SHOWN = 20  # differences away from boundaries to print
_NOT_USED: Any = None


def recognizing_parts() -> Components:
    """Returns the components that a recognizer needs, and those that align its words."""
    return Components(
        build_tokenizer=load_tokenizer,
        build_train_data=_NOT_USED,
        build_eval_data=_NOT_USED,
        find_architecture=_NOT_USED,
        build_model=build.build_model,
        count_samples=duration_samples,
        stream_audio=stream_audio,
        normalize_waveform=normalize_waveform,
        find_reference=lambda path, text_normalization: None,
        loss_fn=_NOT_USED,
        feasible_fn=_NOT_USED,
        decoder=_NOT_USED,
        span_decoder=alignment.greedy_spans,
        span_graph_decoder=_NOT_USED,
        aligner=alignment.forced_align,
        word_aligner=align_words,
        page_environment=_NOT_USED,
    )


class Difference(NamedTuple):
    """A difference between two transcripts.

    Attributes:
        secs: Time in the joined recording.
        alone: Words of the utterances alone.
        joined: Words of the joined recording.
        num_near: Number of words (of the longer side) that start within `NEAR_SECS` of a window boundary.
        num_elsewhere: Number of words that do not.
    """

    secs: float
    alone: tuple[str, ...]
    joined: tuple[str, ...]
    num_near: int
    num_elsewhere: int


def find_differences(
    alone: Sequence[tuple[str, float]], joined: Sequence[tuple[str, float]], joints: Sequence[float]
) -> tuple[int, list[Difference]]:
    """Aligns two transcripts by edit distance.

    Args:
        alone: Words with their times (s) in the joined recording.
        joined: Words of the joined recording with their times.
        joints: Times of the window boundaries (s).

    Returns:
        The number of equal words, and the differences in order.
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
    """Prints one line of counts, and the differences away from window boundaries."""
    near, elsewhere = sum(d.num_near for d in differences), sum(d.num_elsewhere for d in differences)
    shown = [d for d in differences if d.num_elsewhere][:_NUM_SHOWN]
    lines = [f"{num_equal} equal, {near} differ within {NEAR_SECS} s of a joint, {elsewhere} elsewhere"]
    lines += [f"  {d.secs:8.2f} s: {' '.join(d.alone) or '-'} | {' '.join(d.joined) or '-'}" for d in shown]
    return "\n".join(lines)


def _in_any_order(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """Yields all utterances, then shuffles and repeats them forever."""
    yield from utterances
    rng = random.Random(0)
    while utterances:
        yield from rng.sample(utterances, len(utterances))


def _peak_memory(checkpoint: str, recording: Path, output: Path) -> tuple[float, float]:
    """Returns the peak memory (MB) and the seconds of a process that transcribes a recording."""
    command = [sys.executable, "run.py", "--mode=transcribe", f"--checkpoint={checkpoint}", f"--inputs={recording}"]
    start_secs = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--output={output}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    # Not from wait4, whose peak starts with the memory of this process, from which the other was forked.
    peak_kb = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, TypeError):  # the process has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kb = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak_kb / 1000, time.monotonic() - start_secs


def _read(transcriber: Transcriber, path: Path) -> tuple[list[tuple[str, float]], list[float]]:
    """Returns words with their times, and the times of the window boundaries."""
    chunks = list(transcriber.stream_log_probs(transcriber.stream_audio(str(path))))
    joints = [chunk.start_frame * transcriber.secs_per_frame for chunk in chunks[1:]]
    return [(word.text, word.start_secs) for word in transcriber.find_words(chunks)], joints


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="workdir of a run")
    parser.add_argument("--corpus", default="../shared/corpora/LibriSpeech", help="tree as LibriSpeech's, or a .jsonl")
    parser.add_argument("--split", default="train-clean-5", help="folder of a tree")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the recording")
    parser.add_argument("--window_secs", type=float, help="as run.py's")
    flags = parser.parse_args(argv)
    transcriber = load_transcriber(
        parts=recognizing_parts(), checkpoint=flags.checkpoint, window_secs=flags.window_secs
    )
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
        longer = load_transcriber(
            parts=recognizing_parts(), checkpoint=flags.checkpoint, window_secs=2 * transcriber.window_secs
        )
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
