"""Trains a small model that reads some utterances of LibriSpeech in any context, for `long_recording`.

    python -m benchmarks.by_heart --output=runs/by-heart [--corpus=../shared/corpora/LibriSpeech] [--num_utterances=24]
    python -m benchmarks.long_recording --checkpoint=runs/by-heart/long --corpus=runs/by-heart/alone.jsonl

A model that was trained only on whole utterances depends on their context, and a window of a long recording starts and
ends anywhere. So it learns rows cut out of joined audio between words, with utterances in any order and with any gaps
(OUTPUT/rows), together with the utterances alone: first rows of 1 to 6 s (OUTPUT/short), then of 1 to 30 s
(OUTPUT/long). The times of the words come from a model without attention (`--mode=align`, OUTPUT/aligned) that was
trained on the whole split (OUTPUT/aligner), because a model that knows a few utterances by heart can place words half a
second off, at any sound that it remembers. Each row loses up to a frame of its beginning. Otherwise an utterance alone
always has the same alignment to the frames, and where it has that alignment in a recording, the model recognizes it by
its exact samples and omits the space before it. Existing outputs are kept, and an interrupted training resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.served import ROOT
from data.audio.decoding import SAMPLE_RATE, load_audio
from data.corpus.manifest import read_jsonl, read_librispeech, write_jsonl
from data.corpus.utterance import Utterance
from engine.common import files
from models.wav2vec2.config import preset

# Shortest and longest row. Starting with long rows trains far more slowly.
SHORT_SECS = (1.0, 6.0)
LONG_SECS = (1.0, 30.0)
GAP_SECS = (0.0, 0.6)
# Ratio of rows that are an utterance alone.
_ALONE_RATIO = 0.2
_NUM_TRIALS = 40
# No attention, so a frame depends on 0.3 s on either side only.
_ALIGNER = {"hidden_size": 192, "num_layers": 0, "pos_conv_kernel": 24, "pos_conv_groups": 4}
_FRAME_SAMPLES = 320
# The first letter of a word may be found a frame late.
_LEAD_SAMPLES = _FRAME_SAMPLES


@dataclasses.dataclass(frozen=True)
class Aligned:
    """An utterance with the times of its words.

    Attributes:
        samples: float32 [T] at 16 kHz.
        words: Words in order.
        spans: int [N, 2], first sample of each word and first sample after it.
    """

    samples: np.ndarray
    words: tuple[str, ...]
    spans: np.ndarray


def read_alignments(path: Path) -> list[Aligned]:
    """Reads the utterances of an alignments.jsonl of `--mode=align`."""
    found = []
    for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        spans = np.array([(word["start"], word["end"]) for word in record["words"]])
        words = tuple(word["text"] for word in record["words"])
        found.append(
            Aligned(load_audio(record["audio_filepath"]), words, np.round(spans * SAMPLE_RATE).astype(np.int64))
        )
    return found


def join(utterances: Sequence[Aligned], gaps: Sequence[int]) -> Aligned:
    """Joins utterances with gaps of silence, in samples, before each but the first."""
    pieces, words, spans = [np.zeros(0, np.float32)], [], []
    position = 0
    for utterance, gap in zip(utterances, [0, *gaps], strict=True):
        pieces += [np.zeros(gap, np.float32), utterance.samples]
        words += utterance.words
        spans.append(utterance.spans + position + gap)
        position += gap + len(utterance.samples)
    return Aligned(np.concatenate(pieces), tuple(words), np.concatenate(spans))


def find_cuts(joined: Aligned, rng: np.random.Generator) -> np.ndarray:
    """Returns where the audio can be cut, int [N + 1]: before each word, and at both ends.

    A cut between two words lies in the second half of the pause between them, because the words of a CTC model end
    before their sound does, and start with it (docs/results/0153).
    """
    latest = np.maximum(joined.spans[1:, 0] - _LEAD_SAMPLES, joined.spans[:-1, 1])
    middle = (joined.spans[:-1, 1] + latest) // 2
    between = middle + np.floor(rng.random(len(middle)) * (latest - middle + 1)).astype(np.int64)
    return np.concatenate([[0], between, [len(joined.samples)]])


def cut_row(
    utterances: Sequence[Aligned], rng: np.random.Generator, row_secs: tuple[float, float]
) -> tuple[np.ndarray, str]:
    """Draws one row of joined utterances, cut between words.

    Args:
        utterances: Utterances to draw from; none follows itself unless it is the only one.
        rng: Random numbers.
        row_secs: Duration of the shortest and the longest row.

    Returns:
        float32 [T], no longer than the longest row unless a single word is, and its text.
    """
    # As many rows of 1 to 2 s as of 15 to 30, because a second of a long row costs most.
    wanted = round(np.exp(rng.uniform(*np.log(row_secs))) * SAMPLE_RATE)
    members: list[int] = []
    gaps: list[int] = []
    length = 0
    # The row starts somewhere in the first utterance, so as much audio again must follow it.
    while not members or length < len(utterances[members[0]].samples) + wanted:
        others = [index for index in range(len(utterances)) if not members or index != members[-1]]
        members.append(int(rng.choice(others or [0])))
        gaps.append(round(rng.uniform(*GAP_SECS) * SAMPLE_RATE))
        length += gaps[-1] + len(utterances[members[-1]].samples)
    joined = join([utterances[index] for index in members], gaps[1:])
    cuts = find_cuts(joined, rng)
    first = int(rng.integers(len(utterances[members[0]].words)))
    fitting = np.flatnonzero(cuts - cuts[first] <= wanted)
    last = max(int(fitting[-1]), first + 1)
    start = cuts[first] + _draw_phase(joined.spans[first, 0] - cuts[first], rng)
    return joined.samples[start : cuts[last]], " ".join(joined.words[first:last])


def _draw_phase(pause: int, rng: np.random.Generator) -> int:
    """Draws the number of samples, less than a frame, that a row loses of the pause before its first word."""
    return int(rng.integers(max(min(pause + 1, _FRAME_SAMPLES), 1)))


def whole_row(utterance: Aligned, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Returns an utterance without up to a frame of its beginning, and its text."""
    return utterance.samples[_draw_phase(utterance.spans[0, 0], rng) :], " ".join(utterance.words)


def write_rows(folder: Path, rows: Iterable[tuple[np.ndarray, str]]) -> list[Utterance]:
    """Writes rows, float32 [T] with their texts, as 16-bit FLAC files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (samples, text) in enumerate(rows):
        path = folder / f"{number:05d}.flac"
        soundfile.write(path, samples, SAMPLE_RATE)
        found.append(Utterance(f"{folder.name}-{number:05d}", str(path), text, len(samples), SAMPLE_RATE))
    return found


def _write_lists(output: Path, *, num_rows: int) -> None:
    """Writes short.jsonl and long.jsonl for training, and tried.jsonl with the whole utterances for evaluation."""
    utterances = read_alignments(output / "aligned" / "alignments.jsonl")
    num_copies = -(-round(num_rows * _ALONE_RATIO) // len(utterances))

    def cut(name: str, num_rows: int, row_secs: tuple[float, float], seed: int) -> list[Utterance]:
        rng = np.random.default_rng(seed)
        return write_rows(output / "rows" / name, (cut_row(utterances, rng, row_secs) for _ in range(num_rows)))

    rng = np.random.default_rng(3)
    alone = (whole_row(utterance, rng) for utterance in utterances for _ in range(num_copies))
    copies = write_rows(output / "rows" / "alone", alone)
    write_jsonl(output / "short.jsonl", [*cut("short", num_rows, SHORT_SECS, 0), *copies])
    write_jsonl(output / "long.jsonl", [*cut("long", num_rows, LONG_SECS, 1), *copies])
    tried = cut("tried", _NUM_TRIALS, LONG_SECS, 2)
    write_jsonl(output / "tried.jsonl", [*tried, *read_jsonl(output / "alone.jsonl")])


def _learn(output: Path, name: str, *, num_updates: int, tried: str, batch_secs: int, flags: Sequence[str]) -> None:
    """Trains OUTPUT/NAME on NAME.jsonl, and prints how well it reads another list."""
    command = [
        sys.executable,
        "run.py",
        f"--config=configs/overfit.py:{output / name}.jsonl",
        f"--workdir={output / name}",
        f"--config.data.eval.same.input={output / tried}.jsonl",
        "--config.data.max_duration_secs=0",
        "--config.data.num_buckets=6",
        "--config.data.row_multiple=1",
        f"--config.data.max_batch_secs={batch_secs}",
        f"--config.train.num_updates={num_updates}",
        f"--config.train.hold_updates={num_updates // 2}",
        "--config.eval.every_updates=200",
        "--config.eval.report_utterances=0",
        "--config.checkpoint.keep=1",
    ]
    subprocess.run([*command, *flags], cwd=ROOT, check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--corpus", default="../shared/corpora/LibriSpeech", help="tree as LibriSpeech's")
    parser.add_argument("--split", default="train-clean-5", help="folder in it")
    parser.add_argument("--num_utterances", type=int, default=24, help="the shortest of the split")
    parser.add_argument("--num_rows", type=int, default=3000, help="to cut, of each kind")
    parser.add_argument("--updates", type=int, nargs=3, default=[800, 1000, 1200], help="of the three trainings")
    flags = parser.parse_args(argv)
    if flags.num_utterances < 1:
        parser.error(f"--num_utterances={flags.num_utterances}: one at least")
    try:
        _make(flags)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode  # it has printed why
    return 0


def _make(flags: argparse.Namespace) -> None:
    """Makes the rows and models that do not exist yet."""
    output = Path(flags.output).resolve()
    aligner_updates, short_updates, long_updates = flags.updates
    if not (output / "alone.jsonl").is_file():
        output.mkdir(parents=True, exist_ok=True)
        files.write_text_atomic(output / "aligner.json", preset("tiny", **_ALIGNER).to_json())
        utterances = read_librispeech(Path(flags.corpus).resolve(), flags.split)
        write_jsonl(output / "aligner.jsonl", utterances)
        utterances.sort(key=lambda utterance: (utterance.duration_secs, utterance.utterance_id))
        write_jsonl(output / "alone.jsonl", utterances[: flags.num_utterances])
    architecture = [f"--config.model.preset={output / 'aligner.json'}"]
    _learn(output, "aligner", num_updates=aligner_updates, tried="alone", batch_secs=60, flags=architecture)
    if not (output / "tried.jsonl").is_file():
        inputs = ",".join(utterance.audio_filepath for utterance in read_jsonl(output / "alone.jsonl"))
        command = [sys.executable, "run.py", "--mode=align", f"--checkpoint={output / 'aligner'}", f"--inputs={inputs}"]
        subprocess.run([*command, f"--output={output / 'aligned'}"], cwd=ROOT, check=True)
        _write_lists(output, num_rows=flags.num_rows)
    _learn(output, "short", num_updates=short_updates, tried="tried", batch_secs=40, flags=[])
    goes_on = [f"--config.model.init={output / 'short'}", "--config.model.init_head=True"]
    slower = ["--config.train.learning_rate=5e-4"]
    _learn(output, "long", num_updates=long_updates, tried="tried", batch_secs=60, flags=[*goes_on, *slower])


if __name__ == "__main__":
    sys.exit(main())
