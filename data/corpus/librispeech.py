"""Lists the utterances of a LibriSpeech tree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from common import storage
from common.near_files import FileFinder, describe_near
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.records import read_text
from data.corpus.utterance import Row, stem, suffix

_AUDIO_SUFFIXES = (".flac", ".wav")


def list_librispeech(root: str | os.PathLike[str], split: str, report: Report) -> list[Row]:
    """Lists ROOT/SPLIT/SPEAKER/CHAPTER/*.trans.txt and the audio files beside them, sorted by id.

    Args:
        root: Folder of the splits, or of one split.
        split: Folder of the split; "" if `root` is the split.
        report: Called with transcripts without audio and audio without a transcript, which are left out.

    Raises:
        InputError: If there is no such folder, or it has no transcripts.
    """
    folder = storage.join(root, split)
    if not storage.is_dir(folder):
        raise InputError(f"no folder {folder}: check the path{_list_splits(root) or describe_near(folder)}")
    transcripts = _read_transcripts(folder)
    if not transcripts:
        raise InputError(
            f"no SPEAKER/CHAPTER/*.trans.txt under {folder}: give the folder of one split{_list_splits(root)}"
        )
    audio = _find_audio(folder)
    rows: list[Row] = []
    without_audio: list[tuple[str, str]] = []
    for parent, name, text in transcripts:
        if (parent, name) in audio:
            rows.append(Row(name, audio[parent, name], text, os.path.basename(os.path.dirname(parent))))
        else:
            without_audio.append((parent, name))
    if without_audio:
        report(_missing_audio(folder, without_audio, len(transcripts)))
    without_text = sorted(set(audio.values()) - {row.path for row in rows})
    if without_text:
        report(_missing_transcripts(folder, without_text, len(audio)))
    return sorted(rows)


def _find_audio(folder: str) -> dict[tuple[str, str], str]:
    """Maps (folder, utterance id) to the path of each audio file."""
    files = [path for path in _visible(storage.glob(folder, "*/*/*")) if suffix(path) in _AUDIO_SUFFIXES]
    return {(os.path.dirname(path), stem(path)): path for path in files}


def _missing_transcripts(folder: str, without_text: Sequence[str], num_files: int) -> Fault:
    return Fault(
        "missing_transcript",
        f"{len(without_text)} of {num_files} audio files under {folder} have no "
        f"transcript, first {without_text[0]}: fetch the split again",
        {stem(path): f"{path} has no transcript" for path in without_text},
    )


def _missing_audio(folder: str, without_audio: Sequence[tuple[str, str]], num_transcripts: int) -> Fault:
    """Returns the fault of transcripts without audio, given as (folder, utterance id)."""
    parent, first = without_audio[0]
    near = "" if storage.is_remote(folder) else FileFinder(folder).describe(storage.join(parent, f"{first}.flac"))
    return Fault(
        "missing_audio",
        f"{len(without_audio)} of {num_transcripts} transcripts under {folder} have no "
        f"audio, first {first}: fetch the split again{near}",
        dict.fromkeys([name for _, name in without_audio], "a transcript without an audio file"),
    )


def _read_transcripts(folder: str) -> list[tuple[str, str, str]]:
    """Returns (folder, utterance id, text) of each transcript."""
    found = []
    for path in _visible(storage.glob(folder, "*/*/*.trans.txt")):
        for line in read_text(path).splitlines():
            if line.strip():
                utterance_id, _, text = line.strip().partition(" ")
                found.append((os.path.dirname(path), utterance_id, text.strip()))
    return found


def _list_splits(root: str | os.PathLike[str]) -> str:
    """Returns the end of an error message that names the splits under a corpus root."""
    found = storage.glob(root, "*/*/*/*.trans.txt")
    splits = sorted({path.split("/")[-4] for path in found})
    return f"; {root} has the splits {', '.join(splits[:10])}" if splits else ""


def _visible(paths: Iterable[str]) -> list[str]:
    """Returns the paths without hidden files; macOS puts a ._NAME beside each NAME."""
    return [path for path in paths if not os.path.basename(path).startswith(".")]
