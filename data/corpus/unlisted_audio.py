"""Finds audio files that lie beside those of a manifest but are not listed in it."""

from __future__ import annotations

import os
from pathlib import Path

from common.audio_kinds import AUDIO_SUFFIXES
from data.corpus.faults import Fault
from data.corpus.manifest import ONE_FILE_FORMATS, list_audio


def unlisted_audio(*, format: str, input: str | os.PathLike[str], text_column: str = "") -> dict[str, str]:
    """Searches the folders of a manifest's audio for files that it does not list.

    If several manifests lie side by side (one per split, as in Common Voice), nothing is reported, because another
    manifest may list the file. In a LibriSpeech tree such a file is a missing transcript.

    Args:
        format: Format of the corpus; only `ONE_FILE_FORMATS` are searched.
        input: Manifest.
        text_column: Key or column of the transcripts; "" = the known ones.

    Returns:
        Name of each file without its suffix -> its path.
    """
    path = Path(input)
    if format not in ONE_FILE_FORMATS or not path.is_file():
        return {}
    if sum(other.suffix == path.suffix for other in path.parent.iterdir()) > 1:
        return {}
    ignored: list[Fault] = []
    paths = list_audio(format=format, input=input, text_column=text_column, report=ignored.append)
    listed = {Path(os.path.abspath(path)) for path in paths}
    found: dict[str, str] = {}
    for folder in sorted({audio.parent for audio in listed}):
        found |= {file.stem: str(file) for file in _visible_audio(folder) if file not in listed}
    return found


def _visible_audio(folder: Path) -> list[Path]:
    """Returns the audio files of a folder, sorted, without hidden ones such as macOS's ._NAME."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".")]
