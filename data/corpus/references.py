"""Finds the transcript beside an audio file."""

from __future__ import annotations

import os
from pathlib import Path

from data.text.tokenizer import normalize_transcript


def find_reference(path: str | os.PathLike[str], *, text_normalization: str = "librispeech") -> str | None:
    """Looks for the transcript of an audio file.

    It is the line of the file in a *.trans.txt of its folder (LibriSpeech), or the content of a .txt file of its name.

    Args:
        path: Audio file.
        text_normalization: Style of `normalize_transcript`.

    Returns:
        The normalized transcript, or None if there is none.
    """
    audio = Path(path)
    for listing in sorted(audio.parent.glob("*.trans.txt")):
        if listing.name.startswith(".") or not listing.is_file():  # ._NAME of macOS; a pipe could wait forever
            continue
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            utterance_id, _, text = line.partition(" ")
            if utterance_id == audio.stem:
                return normalize_transcript(text, text_normalization)
    beside = audio.with_suffix(".txt")
    if beside.is_file():
        return normalize_transcript(beside.read_text(encoding="utf-8", errors="replace"), text_normalization)
    return None
