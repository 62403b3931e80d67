"""Finds the transcript beside an audio file."""

from __future__ import annotations

import os
from pathlib import Path

from data.corpus import timed_text
from data.text.normalization import normalize_transcript


def find_reference(
    path: str | os.PathLike[str], *, text_normalization: str = "librispeech", with_times: bool = False
) -> str | None:
    """Looks for the transcript of an audio file.

    It is the line of the file in a *.trans.txt of its folder (LibriSpeech), or the content of a .txt file of its name.

    Args:
        path: Audio file.
        text_normalization: Style of `normalize_transcript`.
        with_times: Whether subtitles and annotations of its name serve too (`data.corpus.timed_text`), for a mode that
            does not write any beside recordings.

    Returns:
        The normalized transcript, or None if there is none.

    Raises:
        InputError: Subtitles or annotations cannot be read.
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
    for suffix in timed_text.SUFFIXES if with_times else ():
        if (beside := audio.with_suffix(suffix)).is_file():
            return normalize_transcript(timed_text.read_text(beside), text_normalization)
    return None
