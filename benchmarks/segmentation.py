"""Measures what --mode=segment makes of a long recording whose text has known faults.

    python -m benchmarks.segmentation --checkpoint=runs/quickstart --corpus=runs/quickstart-corpus --hours=1

joins utterances of a corpus in LibriSpeech's layout, with pauses of 0.1 to 0.9 s between them, changes 5 % of the words
of their text and leaves two passages out of it. Then it prints how much of the speech with a right text is kept, how
much of what was dropped had a fault, and how far the starts of words are from those that the same model finds in each
utterance alone. With --keep=FOLDER the recording and its text stay in FOLDER/long, for --mode=segment, and
FOLDER/true.jsonl is a manifest of the utterances as they were joined, to train on beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jiwer
import numpy as np
import soundfile

from benchmarks.long_recording import recognizing_parts
from configs import base
from data.corpus.librispeech import list_librispeech
from engine.common import files
from engine.config import builders
from engine.inference.loading import load_transcriber
from engine.modes import segment
from engine.modes.align import align_file
from engine.segmentation.page import count_reasons
from engine.segmentation.results import CutRecording
from engine.segmentation.segmenter import segment_file

_PAUSE_SECS = (0.1, 0.9)


@dataclasses.dataclass(frozen=True)
class Word:
    """A word that was said.

    Attributes:
        text: The word.
        utterance: Number of its utterance.
        written: What the text has in its place; "" if it is missing.
    """

    text: str
    utterance: int
    written: str


def make_words(texts: Sequence[str], *, changed_ratio: float, passage: int, seed: int) -> list[Word]:
    """Returns the words of utterances with faults in their text.

    Args:
        texts: Text of each utterance.
        changed_ratio: Share of the words that another word replaces.
        passage: Utterances of each of the two passages that are missing.
        seed: Seed of the faults.
    """
    rng = random.Random(seed)
    vocabulary = sorted({word for text in texts for word in text.split()})
    missing = {number for start in (len(texts) // 3, 2 * len(texts) // 3) for number in range(start, start + passage)}
    found = []
    for number, text in enumerate(texts):
        for word in text.split():
            written = word
            if number in missing:
                written = ""
            elif rng.random() < changed_ratio:
                written = rng.choice([other for other in vocabulary if other != word])
            found.append(Word(word, number, written))
    return found


def join(paths: Sequence[Path], target: Path, *, seed: int) -> list[float]:
    """Writes the recordings one after another and returns the start of each in seconds."""
    rng, starts, rate, position = random.Random(seed), [], soundfile.info(paths[0]).samplerate, 0
    with soundfile.SoundFile(target, "w", rate, 1) as file:
        for path in paths:
            starts.append(position / rate)
            pause = np.zeros(round(rng.uniform(*_PAUSE_SECS) * rate), np.float32)
            speech = np.concatenate([soundfile.read(path, dtype="float32")[0], pause])
            file.write(speech)
            position += len(speech)
    return starts


def write_recording(
    folder: Path, paths: Sequence[Path], texts: Sequence[str], words: Sequence[Word], *, seed: int
) -> list[float]:
    """Writes the joined recording, its faulty text and the manifest of its true cuts; returns the starts in seconds."""
    (folder / "long").mkdir(parents=True, exist_ok=True)
    starts = join(paths, folder / "long" / "long.flac", seed=seed)
    files.write_text_atomic(folder / "long" / "long.txt", _faulty_text(words) + "\n")
    rows = (
        {
            "utterance_id": path.stem, "audio_filepath": "long/long.flac", "offset": start,
            "duration": soundfile.info(path).duration, "text": text,
        }
        for path, start, text in zip(paths, starts, texts, strict=True)
    )  # fmt: skip
    files.write_jsonl_atomic(folder / "true.jsonl", rows)
    return starts


def _faulty_text(words: Sequence[Word]) -> str:
    return " ".join(word.written for word in words if word.written)


def _choose(corpus: str, split: str, hours: float) -> tuple[list[Path], list[str]]:
    """Returns recordings of about so many hours and their texts."""
    paths: list[Path] = []
    texts: list[str] = []
    secs = 0.0
    for row in list_librispeech(corpus, split, lambda fault: None):
        paths.append(Path(row.path))
        texts.append(row.text)
        secs += soundfile.info(paths[-1]).duration + sum(_PAUSE_SECS) / 2
        if secs >= 3600 * hours:
            break
    return paths, texts


def measure(flags: argparse.Namespace) -> Iterator[str]:
    """Yields the lines of the result."""
    parts = recognizing_parts()
    transcriber = load_transcriber(parts=parts, checkpoint=flags.checkpoint)
    bound = builders.with_blank(parts, transcriber.tokenizer)
    paths, texts = _choose(flags.corpus, flags.split, flags.hours)
    words = make_words(texts, changed_ratio=flags.changed_ratio, passage=max(1, len(texts) // 50), seed=flags.seed)
    options = base.get_config().segment
    options.update(flags.segment)
    aligner, cutting = segment.bind_options(parts, transcriber.tokenizer, options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.keep or temporary)
        starts = write_recording(folder, paths, texts, words, seed=flags.seed)
        begin, cpu = time.monotonic(), time.process_time()
        path, text = str(folder / "long" / "long.flac"), _faulty_text(words)
        found = segment_file(transcriber, aligner, path, text, options=cutting)
        secs, cpu = time.monotonic() - begin, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        heard = transcriber.text_of(transcriber.stream_log_probs(transcriber.stream_audio(path)))
    yield (
        f"{found.duration_secs / 3600:.2f} h, {len(paths):,} utterances, {len(words):,} words: {secs:.0f} s, "
        f"{cpu:.0f} processor-s, peak memory of the process {memory:.2f} GiB"
    )
    said = " ".join(word.text for word in words)
    wer, cer = jiwer.wer(said, heard), jiwer.cer(said, heard)
    yield f"the recognizer, in windows of it: {100 * wer:.1f} % WER, {100 * cer:.1f} % CER"
    kept = [(word.text, word.start_secs) for cut in found.cuts if not cut.reason for word in cut.words]
    places = _places(words, starts, kept, [soundfile.info(path).duration for path in paths])
    right = sum(word.written == word.text for word in words)
    kept_right = sum(words[place].written == words[place].text for place in places if place is not None)
    dropped = set(range(len(words))) - {place for place in places if place is not None}
    faulty = sum(words[place].written != words[place].text for place in dropped)
    yield f"words with a right text: {right:,}; kept of them: {100 * kept_right / right:.2f} %"
    yield f"kept words whose text is wrong: {len(kept) - kept_right:,} of {len(kept):,}"
    yield f"dropped words: {len(dropped):,}; of them faulty: {100 * faulty / max(len(dropped), 1):.1f} %"
    for row in count_reasons([CutRecording.of(found)]):
        yield f"left out, {row['reason']}: {row['count']:,} stretches, {row['num_words']:,} words, {row['secs']:,.0f} s"
    errors = []
    sample = random.Random(flags.seed).sample(range(len(paths)), min(flags.compared, len(paths)))
    for number in sample:
        _, alone = align_file(transcriber, bound.aligner, str(paths[number]), texts[number])
        own = [place for place, word in enumerate(words) if word.utterance == number]
        for (_, start), place in zip(kept, places, strict=True):
            if place is not None and place in own and len(alone) == len(own):
                errors.append(abs(start - starts[number] - alone[own.index(place)].start_secs))
    if errors:
        yield (
            f"start of {len(errors):,} words of {len(sample)} utterances, against the utterance alone: median "
            f"{1000 * float(np.median(errors)):.0f} ms, 95 % within {1000 * float(np.percentile(errors, 95)):.0f} ms, "
            f"worst {1000 * max(errors):.0f} ms"
        )


def _places(
    words: Sequence[Word], starts: Sequence[float], kept: Sequence[tuple[str, float]], durations: Sequence[float]
) -> list[int | None]:
    """Returns for each kept word the word of the transcript that was said there; None if none fits."""
    ranges: dict[int, list[int]] = {}
    for place, word in enumerate(words):
        ranges.setdefault(word.utterance, []).append(place)
    found: list[int | None] = []
    last = -1
    for text, start in kept:
        number = int(np.searchsorted(starts, start + 0.05, "right")) - 1
        is_inside = start < starts[number] + durations[number] + 0.2
        own = [place for place in ranges.get(number, []) if place > last and words[place].written == text]
        found.append(own[0] if own and is_inside else None)
        last = found[-1] if found[-1] is not None else last
    return found


def parse_field(given: str) -> tuple[str, float]:
    """Returns the name and the value of FIELD=VALUE, a number of config.segment.

    Raises:
        argparse.ArgumentTypeError: There is no such number, or the value is none.
    """
    name, _, value = given.partition("=")
    numbers = [name for name, default in base.get_config().segment.items() if isinstance(default, float)]
    try:
        if name in numbers:
            return name, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{given}: wanted NAME=NUMBER, of {', '.join(numbers)}")


def main(argv: Sequence[str]) -> int:
    """Prints the result and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="recognizer, as of --mode=segment")
    parser.add_argument("--corpus", required=True, help="corpus in LibriSpeech's layout")
    parser.add_argument("--split", default="train", help="its split")
    parser.add_argument("--hours", type=float, default=1.0, help="length of the recording")
    parser.add_argument("--changed_ratio", type=float, default=0.05, help="share of the words that are changed")
    parser.add_argument("--compared", type=int, default=100, help="utterances that are aligned alone, to compare")
    parser.add_argument(
        "--segment", nargs="*", type=parse_field, default=(), metavar="FIELD=VALUE", help="numbers of config.segment"
    )
    parser.add_argument("--keep", default="", help="folder for the recording, its text and its true cuts")
    parser.add_argument("--seed", type=int, default=0, help="seed of faults and pauses")
    for line in measure(parser.parse_args(argv)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
