"""The transcript that lies beside an audio file, if one does."""

from __future__ import annotations

import os
from pathlib import Path

from data.text.tokenizer import normalize_transcript


def find_reference(path: str | os.PathLike[str], *, text_style: str = "librispeech") -> str | None:
    """Looks for a file's transcript where corpora keep it.

    Args:
        path: Audio file. Its transcript is the line of its name in a *.trans.txt of its folder (LibriSpeech), or the
            content of the .txt file of its name.
        text_style: `normalize_transcript`'s style.

    Returns:
        The normalized transcript, None if there is none.
    """
    audio = Path(path)
    for listing in sorted(audio.parent.glob("*.trans.txt")):
        if listing.name.startswith(".") or not listing.is_file():  # macOS's ._NAME; a pipe would wait for ever
            continue
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            utterance_id, _, text = line.partition(" ")
            if utterance_id == audio.stem:
                return normalize_transcript(text, text_style)
    beside = audio.with_suffix(".txt")
    if beside.is_file():
        return normalize_transcript(beside.read_text(encoding="utf-8", errors="replace"), text_style)
    return None
