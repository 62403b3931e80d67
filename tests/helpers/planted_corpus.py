"""A corpus with one fault of every kind, planted in utterances that have none: what the doctor has to name."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data.audio.decoding import resample
from data.corpus.utterance import Utterance
from data.shards.preparation import write_tfrecords

RATE = 16_000


@dataclass
class Clean:
    """An utterance without fault; `path` is copied where there is one, else the waveform is written."""

    utterance_id: str
    speaker: str
    text: str
    waveform: np.ndarray
    path: Path | None = None


def speak_tones(num: int, *, speakers: int, seed: int, first_speaker: int) -> list[Clean]:
    """Noise that comes and goes in syllables, as long as its text takes to read."""
    rng = np.random.default_rng(seed)
    words = ["TIME", "FLIES", "LIKE", "ARROW", "FRUIT", "BANANA", "MOUNTAIN", "RIVER", "STONE", "WATER", "MORNING"]
    found = []
    for i in range(num):
        text = " ".join(rng.choice(words, 3 + i % 8))
        secs = len(text) / 15 * rng.uniform(0.9, 1.1) + 0.3
        time = np.arange(round(secs * RATE)) / RATE
        envelope = 0.2 + 0.15 * np.sin(2 * np.pi * 4 * time + rng.uniform(0, 6))
        waveform = (envelope * rng.uniform(-1, 1, len(time))).astype(np.float32)
        speaker = str(first_speaker + i % speakers)
        found.append(Clean(f"{speaker}-1-{i:04d}", speaker, text, waveform))
    return found


def write_audio(path: Path, waveform: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate)


def plant(  # noqa: C901, one branch a fault
    folder: Path, train: list[Clean], evaluation: list[Clean]
) -> dict[tuple[str, str], set[str]]:
    """Writes FOLDER/tree/train (LibriSpeech), FOLDER/eval/manifest.jsonl and FOLDER/shards, faults included.

    Args:
        folder: To write to.
        train: At least 30 utterances of at least 1 s.
        evaluation: At least 14 of other speakers.

    Returns:
        (set, code) -> ids, of everything planted; of the rate that `refuse` refuses as mixed_rates.
    """
    victims = {name: item for name, item in zip(_TRAIN_FAULTS, train, strict=False)}
    rest = train[len(victims) :]
    speaker = rest[0].speaker
    by_length = sorted(rest, key=lambda item: len(item.waveform))
    lines: dict[str, list[str]] = {}

    def place(item_id: str, who: str, text: str | None, waveform: np.ndarray | None, *, rate: int = RATE) -> Path:
        chapter = folder / "tree/train" / who / "1"
        path = chapter / f"{item_id}.flac"
        if waveform is not None:
            write_audio(path, waveform, rate)
        if text is not None:
            lines.setdefault(who, []).append(f"{item_id} {text}".rstrip())
        return path

    def keep(item: Clean, *, text: str | None = "") -> Path:
        text = item.text if text == "" else text
        path = place(item.utterance_id, item.speaker, text, None if item.path else item.waveform)
        if item.path:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(item.path, path)
        return path

    def replace(item: Clean, waveform: np.ndarray, *, rate: int = RATE) -> None:
        place(item.utterance_id, item.speaker, item.text, waveform, rate=rate)

    for item in rest:
        keep(item)
    for name, item in victims.items():
        waveform = item.waveform
        if name == "garbled":
            keep(item).write_bytes(b"no audio" * 100)
        elif name == "cut":
            path = keep(item)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif name == "empty":
            place(item.utterance_id, item.speaker, item.text, None)
            write_audio(folder / "tree/train" / item.speaker / "1" / f"{item.utterance_id}.wav", np.zeros(0))
        elif name == "gone":
            place(item.utterance_id, item.speaker, item.text, None)
        elif name == "orphan":
            keep(item, text=None)
        elif name == "twice":
            keep(item)
            lines[item.speaker].append(f"{item.utterance_id} {item.text}")
        elif name == "telephone":
            replace(item, resample(waveform, RATE, 8_000), rate=8_000)
        elif name == "silence":
            replace(item, np.zeros_like(waveform))
        elif name == "mostly_silence":
            # Two seconds of it, and 18 of nothing; the text of two seconds.
            replace(item, np.concatenate([waveform[:RATE], np.zeros(18 * RATE, np.float32)]))
        elif name == "loud":
            replace(item, np.clip(waveform * (8 / np.abs(waveform).max()), -1, 1))
        elif name == "balanced":
            replace(item, np.stack([waveform, -waveform], axis=1))
        elif name == "short":
            replace(item, waveform[: RATE // 20])
        elif name == "long":
            replace(item, np.resize(waveform, 21 * RATE))
        elif name == "wordless":
            place(item.utterance_id, item.speaker, "", waveform)
        elif name == "foreign":
            place(item.utterance_id, item.speaker, f"{item.text} ÜBER", waveform)
        elif name == "numbers":
            place(item.utterance_id, item.speaker, f"{item.text} 42", waveform)
        elif name == "crammed":
            place(item.utterance_id, item.speaker, " ".join(["LETTERS"] * 30), waveform[: 3 * RATE])
        elif name == "misaligned":
            place(item.utterance_id, item.speaker, "YES", np.resize(waveform, 12 * RATE))
    copy, other = by_length[0], by_length[1]
    place("copy", speaker, copy.text, copy.waveform)
    # The audio of one with the text of another of much the same length.
    place("liar", speaker, by_length[2].text, other.waveform)
    for who, texts in lines.items():
        (folder / "tree/train" / who / "1" / f"{who}-1.trans.txt").write_text("\n".join(texts) + "\n")

    records = []

    def list_eval(item_id: str, who: str, text: str, waveform: np.ndarray) -> None:
        write_audio(folder / "eval/audio" / f"{item_id}.flac", waveform)
        records.append({"audio_filepath": f"audio/{item_id}.flac", "text": text, "speaker": who})

    clean, sharded = evaluation[:-6], evaluation[-6:]
    for item in clean:
        list_eval(item.utterance_id, item.speaker, item.text, item.waveform)
    leaked, renamed, namesake = by_length[3], by_length[4], by_length[5]
    list_eval(leaked.utterance_id, leaked.speaker, leaked.text, leaked.waveform)
    list_eval("renamed", renamed.speaker, renamed.text, renamed.waveform)
    list_eval(namesake.utterance_id, clean[0].speaker, clean[0].text, clean[0].waveform[:-160])
    known = victims["gone"]  # not in training after all
    list_eval("unheard", speaker, known.text, known.waveform)
    write_audio(folder / "eval/audio/forgotten.flac", clean[1].waveform[:-160])
    manifest = folder / "eval/manifest.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records) + "{broken\n")

    utterances = []
    for item in sharded:
        path = folder / "sources" / f"{item.utterance_id}.flac"
        write_audio(path, item.waveform)
        utterances.append(
            Utterance(item.utterance_id, str(path), item.text, len(item.waveform), RATE, speaker_id=item.speaker)
        )
    write_tfrecords(utterances=utterances, output=folder / "shards", num_shards=2, num_workers=1, progress=False)
    shard = sorted((folder / "shards").glob("*.tfrecord"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)

    ids = {name: item.utterance_id for name, item in victims.items()}
    return {
        ("train", "unreadable_audio"): {ids["garbled"], ids["cut"]},
        ("train", "empty_audio"): {ids["empty"]},
        ("train", "missing_audio"): {ids["gone"]},
        ("train", "missing_transcript"): {ids["orphan"]},
        ("train", "duplicate_id"): {ids["twice"]},
        ("train", "mixed_rates"): {ids["telephone"]},
        ("train", "silent_audio"): {ids["silence"]},
        ("train", "mostly_silent"): {ids["mostly_silence"]},
        ("train", "clipped_audio"): {ids["loud"]},
        ("train", "cancelling_channels"): {ids["balanced"]},
        ("train", "too_short"): {ids["short"]},
        ("train", "too_long"): {ids["long"]},
        ("train", "empty_text"): {ids["wordless"]},
        ("train", "unknown_characters"): {ids["foreign"]},
        ("train", "lost_digits"): {ids["numbers"]},
        ("train", "labels_do_not_fit"): {ids["crammed"]},
        ("train", "speaking_rate"): {ids["misaligned"]},
        ("train", "duplicate_audio"): {"copy"},
        ("train", "contradicting_transcripts"): {"liar"},
        ("eval files", "id_leak"): {leaked.utterance_id},
        ("eval files", "audio_leak"): {"renamed"},
        ("eval files", "shared_id"): {namesake.utterance_id},
        ("eval files", "speaker_leak"): {speaker},
        ("eval files", "unlisted_audio"): {"forgotten"},
        ("eval files", "bad_record"): {f"{manifest}:{len(records) + 1}"},
        ("eval shards", "damaged_shard"): {shard.name},
        ("eval absent", "unusable_corpus"): {"absent"},
    }


_TRAIN_FAULTS = (
    "garbled", "cut", "empty", "gone", "orphan", "twice", "telephone", "silence", "mostly_silence", "loud", "short",
    "long", "wordless", "foreign", "numbers", "crammed", "misaligned", "balanced",
)  # fmt: skip
