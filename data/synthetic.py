"""Makes a synthetic speech corpus in LibriSpeech layout: digits and short sentences in many eSpeak NG voices.

    python -m data.synthetic --output=DIR [--num_train=6000] [--num_eval=200] [--sentence_ratio=0.4] [--seed=0]

`DIR/train` and `DIR/eval` hold SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac (16 bits, 22,050 Hz) and the transcripts. No
voice of `eval` occurs in `train`, in any accent. Chapter 1 of a training speaker is clean; chapter 2 simulates a
telephone (8 kHz, the tilt of a microphone, noise), which helps later fine-tuning on 8 kHz recordings. `eval` is clean.
The bytes depend only on the parameters and on the versions of the synthesizer and the codec.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from common.json_files import MalformedFileError, field, read_object
from data.audio.decoding import fit_length, resample
from data.command import Parser, run_command
from data.common.errors import InputError
from data.synthesis.espeak import SAMPLE_RATE, Synthesizer
from data.synthesis.phrases import DIGITS, SENTENCE_RATIO, draw_text

TELEPHONE_RATE = 8000
CLEAN_CHAPTER, TELEPHONE_CHAPTER = 1, 2
FORMAT_VERSION = 1
DIGIT_BY_DIGIT_PROB = 0.3  # probability that the digits of a sequence are spoken one by one, joined with pauses

ACCENTS = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029",
    "en-us-nyc",
)  # fmt: skip
# Voice variants of eSpeak that sound like a person, without robots, whispering and creaky voices.
TRAIN_VARIANTS = {
    "F": ("f1", "f3", "f4", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "grandma",
          "linda", "shelby", "steph"),
    "M": ("m1", "m2", "m4", "m5", "m6", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene", "Henrique",
          "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed", "adam", "announcer",
          "benjamin", "boris", "david", "ed", "edward", "grandpa", "gustave", "ian", "john", "max",
          "michel", "miguel", "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro",
          "travis", "victor"),
}  # fmt: skip
EVAL_VARIANTS = {"F": ("f2", "f5"), "M": ("m3", "m7")}
FIRST_SPEAKER_ID = {"train": 1001, "eval": 9001}


@dataclasses.dataclass(frozen=True)
class Speaker:
    """One voice.

    Attributes:
        speaker_id: Number in the corpus.
        sex: "F" or "M".
        accent: eSpeak language.
        variant: eSpeak variant, which models the vocal tract.
        rate: Words per minute.
        pitch: Pitch from 0 to 100.
        pitch_range: Range of the pitch from 0 to 100.
    """

    speaker_id: int
    sex: str
    accent: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int

    @property
    def voice(self) -> str:
        """The name of the voice for `Synthesizer`."""
        return f"{self.accent}+{self.variant}"


def make_speakers(*, split: str, num_speakers: int, seed: int) -> list[Speaker]:
    """Draws different voices, alternating between the sexes.

    Raises:
        InputError: If there are fewer than `num_speakers` voices.
    """
    rng = np.random.default_rng([seed, FIRST_SPEAKER_ID[split]])
    variants = TRAIN_VARIANTS if split == "train" else EVAL_VARIANTS
    most = 2 * len(ACCENTS) * min(len(names) for names in variants.values())
    if not 0 < num_speakers <= most:
        raise InputError(f"data.synthetic: {num_speakers} {split} speakers requested, wanted 1 to {most}")
    voices = {}
    for sex, names in variants.items():
        # A Latin square: each variant occurs once before any occurs again in another accent.
        shuffled = rng.permutation(np.array(names))
        shift = rng.integers(len(ACCENTS), size=len(names))
        voices[sex] = [
            (ACCENTS[(shift[i] + turn) % len(ACCENTS)], str(name))
            for turn in range(len(ACCENTS))
            for i, name in enumerate(shuffled)
        ]
    speakers = []
    for i in range(num_speakers):
        sex = "FM"[i % 2]
        accent, variant = voices[sex][i // 2]
        speakers.append(
            Speaker(
                speaker_id=FIRST_SPEAKER_ID[split] + i,
                sex=sex,
                accent=accent,
                variant=variant,
                rate=int(rng.integers(125, 206)),
                pitch=int(rng.integers(30, 71)),
                pitch_range=int(rng.integers(25, 81)),
            )
        )
    return speakers


def say(*, synthesizer: Synthesizer, speaker: Speaker, text: str, rng: np.random.Generator) -> np.ndarray:
    """Synthesizes one clean utterance, float32 [T] at 22,050 Hz, with short silences around it.

    Rate and pitch vary a little around the speaker's. Some digit sequences are spoken digit by digit, each with the
    melody of a whole utterance, and joined with pauses.
    """
    manner = {
        "rate": int(speaker.rate * rng.uniform(0.9, 1.1)),
        "pitch": int(np.clip(speaker.pitch + rng.integers(-6, 7), 0, 99)),
        "pitch_range": speaker.pitch_range,
    }
    words = text.split()
    parts = [silence(rng, 0.02, 0.25)]
    if words[0] in DIGITS and rng.random() < DIGIT_BY_DIGIT_PROB:
        for word in words:
            parts += [synthesizer.speak(word, **manner), silence(rng, 0.01, 0.3)]
        parts.pop()
    else:
        word_gap = int(rng.integers(0, 9)) if words[0] in DIGITS else int(rng.integers(0, 3))
        parts.append(synthesizer.speak(text, word_gap=word_gap, **manner))
    parts.append(silence(rng, 0.02, 0.25))
    return np.concatenate(parts)


def silence(rng: np.random.Generator, shortest_secs: float, longest_secs: float) -> np.ndarray:
    """Returns zeros, float32 [T], of a random duration."""
    return np.zeros(int(rng.uniform(shortest_secs, longest_secs) * SAMPLE_RATE), np.float32)


def over_the_telephone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulates a telephone: limits a waveform [T] to the band of 8 kHz, tilts it and adds noise."""
    narrow = resample(waveform, SAMPLE_RATE, TELEPHONE_RATE)
    tilt = rng.uniform(-0.6, 0.6)  # below 0 darker, above 0 brighter
    narrow[1:] -= tilt * narrow[:-1].copy()
    snr_db = rng.uniform(15.0, 45.0)
    noise = rng.standard_normal(len(narrow), dtype=np.float32)
    narrow += noise * (np.sqrt(np.mean(np.square(narrow))) * 10 ** (-snr_db / 20))
    return fit_length(resample(narrow, TELEPHONE_RATE, SAMPLE_RATE), len(waveform))


def write_split(
    *,
    folder: Path,
    split: str,
    num_utterances: int,
    num_speakers: int,
    telephone_ratio: float,
    sentence_ratio: float,
    seed: int,
) -> float:
    """Writes one split in LibriSpeech layout and adds its voices to SPEAKERS.TXT.

    Args:
        folder: Folder of the corpus.
        split: "train" or "eval".
        num_utterances: Utterances to make, given to the speakers in turn.
        num_speakers: Number of voices.
        telephone_ratio: Ratio of utterances that go over the telephone.
        sentence_ratio: Ratio of utterances that are sentences; the others are digits.
        seed: Seed of voices, texts and noise.

    Returns:
        The duration of all utterances in seconds.
    """
    num_samples = 0
    speakers = make_speakers(split=split, num_speakers=num_speakers, seed=seed)
    progress = tqdm(total=num_utterances, desc=f"speaking {split}", unit="utt", disable=None)
    with progress, (folder / "SPEAKERS.TXT").open("a", encoding="utf-8") as table:
        for position, speaker in enumerate(speakers):
            table.write(f"{speaker.speaker_id} | {speaker.sex} | {split} | eSpeak NG {speaker.voice}\n")
            synthesizer = Synthesizer(voice=speaker.voice, seed=seed + speaker.speaker_id)
            transcripts: dict[int, list[str]] = {}
            for index in range(position, num_utterances, num_speakers):
                rng = np.random.default_rng([seed, FIRST_SPEAKER_ID[split], index])
                text = draw_text(rng, sentence_ratio=sentence_ratio)
                waveform = say(synthesizer=synthesizer, speaker=speaker, text=text, rng=rng)
                chapter = CLEAN_CHAPTER
                if rng.random() < telephone_ratio:
                    chapter = TELEPHONE_CHAPTER
                    waveform = over_the_telephone(waveform, rng)
                waveform *= rng.uniform(0.1, 0.9) / np.abs(waveform).max()
                lines = transcripts.setdefault(chapter, [])
                stem = f"{speaker.speaker_id}-{chapter}"
                utterance_id = f"{stem}-{len(lines):04d}"
                target = folder / split / str(speaker.speaker_id) / str(chapter)
                target.mkdir(parents=True, exist_ok=True)
                soundfile.write(target / f"{utterance_id}.flac", waveform, SAMPLE_RATE, subtype="PCM_16")
                lines.append(f"{utterance_id} {text}\n")
                num_samples += len(waveform)
                progress.update()
            synthesizer.close()
            for chapter, lines in transcripts.items():
                stem = f"{speaker.speaker_id}-{chapter}"
                path = folder / split / str(speaker.speaker_id) / str(chapter) / f"{stem}.trans.txt"
                path.write_text("".join(lines), encoding="utf-8")
    return num_samples / SAMPLE_RATE


def write_synthetic_corpus(
    *,
    output: str | os.PathLike[str],
    seed: int = 0,
    num_train: int = 6000,
    num_eval: int = 200,
    num_train_speakers: int = 120,
    num_eval_speakers: int = 12,
    telephone_ratio: float = 0.4,
    sentence_ratio: float = SENTENCE_RATIO,
) -> Path:
    """Makes the corpus unless it exists.

    The corpus is written to a folder beside `output` and renamed at the end, so `output` is complete or absent; an
    interrupted call starts again. `output/corpus.json` records the parameters: a corpus with the same ones is kept, and
    a folder with others is refused, so nothing is ever overwritten. `eval` does not depend on the parameters of
    `train` alone.

    Args:
        output: Folder to make; its parent is made too.
        seed: Seed of voices, texts and noise.
        num_train: Utterances of `train`, given to the speakers in turn.
        num_eval: Utterances of `eval`.
        num_train_speakers: Voices of `train` (fewer if there are fewer utterances).
        num_eval_speakers: Voices of `eval`, none of them in `train`.
        telephone_ratio: Ratio of the utterances of `train` that go over the telephone.
        sentence_ratio: Ratio of the utterances of both that are sentences; the others are digits.

    Returns:
        The folder.

    Raises:
        InputError: If a parameter is out of range, the synthesizer is missing, or `output` holds something else.
    """
    output = Path(output)
    are_ratios = all(0.0 <= ratio <= 1.0 for ratio in (telephone_ratio, sentence_ratio))
    if num_train < 1 or num_eval < 1 or seed < 0 or not are_ratios:
        raise InputError(
            "data.synthetic: wanted num_train and num_eval of 1 or more, seed of 0 or more, and telephone_ratio and "
            f"sentence_ratio from 0 to 1, got {num_train}, {num_eval}, {seed}, {telephone_ratio} and {sentence_ratio}"
        )
    parameters: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "num_train": num_train,
        "num_eval": num_eval,
        "num_train_speakers": min(num_train_speakers, num_train),
        "num_eval_speakers": min(num_eval_speakers, num_eval),
        "telephone_ratio": telephone_ratio,
        "sentence_ratio": sentence_ratio,
    }
    if _holds_corpus(output, parameters):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.partial-"
    _remove_remains(output.parent, prefix)
    partial = output.parent / f"{prefix}{os.getpid()}"
    partial.mkdir()
    try:
        durations = {}
        for split, ratio in (("train", telephone_ratio), ("eval", 0.0)):
            durations[split] = write_split(
                folder=partial,
                split=split,
                num_utterances=parameters[f"num_{split}"],
                num_speakers=parameters[f"num_{split}_speakers"],
                telephone_ratio=ratio,
                sentence_ratio=sentence_ratio,
                seed=seed,
            )
        described = {**parameters, "sample_rate": SAMPLE_RATE, "duration_secs": durations}
        (partial / "corpus.json").write_text(json.dumps(described, indent=1) + "\n")
        if not _holds_corpus(output, parameters):  # another process may have been faster
            os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def _remove_remains(folder: Path, prefix: str) -> None:
    """Deletes the partial corpora of processes that no longer run."""
    for remains in folder.iterdir():
        process_id = remains.name.removeprefix(prefix)
        if remains.name.startswith(prefix) and process_id.isdecimal() and not _is_running(int(process_id)):
            shutil.rmtree(remains)


def _holds_corpus(output: Path, parameters: dict[str, Any]) -> bool:
    """Returns whether `output` is this corpus; raises InputError if it holds something else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        found = read_object(output / "corpus.json")
        found.setdefault("telephone_ratio", found.get("telephone_share"))  # its name in earlier versions
        found.setdefault("sentence_ratio", SENTENCE_RATIO)  # that of earlier versions
        differing = [
            f"{name} {found.get(name)} not {value}" for name, value in parameters.items() if found.get(name) != value
        ]
    except OSError:
        differing = ["no readable corpus.json"]
    except MalformedFileError as error:
        differing = [str(error)]
    if differing:
        raise InputError(
            f"{output}: not the requested synthetic corpus ({', '.join(differing)}); remove it or choose another output"
        )
    return True


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_id != os.getpid()  # a folder with our own number is left over from an earlier process


def _run(options: argparse.Namespace) -> None:
    output = write_synthetic_corpus(**vars(options))
    path = output / "corpus.json"
    durations = field(read_object(path), "duration_secs", dict, str(path))
    for split in durations:
        print(f"{output / split}: {field(durations, split, float, str(path)) / 60:.1f} minutes of speech")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(
        prog="python -m data.synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--num_train", type=int, default=6000, help="utterances of train")
    parser.add_argument("--num_eval", type=int, default=200, help="utterances of eval")
    parser.add_argument(
        "--sentence_ratio", type=float, default=SENTENCE_RATIO, help="ratio of sentences; 0 = digits alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of voices, texts and noise")
    return run_command(parser, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
