"""Keeps transcripts as rows of the journal from which `--mode=transcribe` continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.json_files import MalformedFileError, field, is_kind
from engine.inference.beam_search import Alternative
from engine.inference.transcriber import Transcript
from engine.inference.words import Timed


def to_content(transcript: Transcript) -> dict[str, Any]:
    """Returns the content of a transcript's row."""
    return {
        "duration_secs": float(transcript.duration_secs),
        "words": [_untimed(word) for word in transcript.words],
        "alternatives": [[one.text, float(one.score)] for one in transcript.alternatives],
    }


def from_row(row: Mapping[str, Any], path: str) -> Transcript:
    """Returns the transcript of a row.

    Args:
        row: A row with what `to_content` returned.
        path: The recording as it is called now.

    Raises:
        MalformedFileError: The row holds something else.
    """
    where = f"the row of {path}"
    alternatives = []
    for one in field(row, "alternatives", list, where):
        if not is_kind(one, list) or len(one) != 2 or not (is_kind(one[0], str) and is_kind(one[1], float)):
            raise MalformedFileError(f"{where} has {one!r} among its alternatives")
        alternatives.append(Alternative(one[0], one[1]))
    words = tuple(_timed(one, where) for one in field(row, "words", list, where))
    return Transcript(path, words, field(row, "duration_secs", float, where), tuple(alternatives))


def _untimed(word: Timed) -> dict[str, Any]:
    """Returns the object of a word or a character, without the scalars of NumPy, which round otherwise than floats."""
    return {
        "text": word.text,
        "start_secs": float(word.start_secs),
        "end_secs": float(word.end_secs),
        "confidence": float(word.confidence),
        "characters": [_untimed(character) for character in word.characters],
    }


def _timed(found: Any, where: str) -> Timed:
    if not is_kind(found, dict):
        raise MalformedFileError(f"{where} has {found!r} among its words")
    return Timed(
        text=field(found, "text", str, where),
        start_secs=field(found, "start_secs", float, where),
        end_secs=field(found, "end_secs", float, where),
        confidence=field(found, "confidence", float, where),
        characters=tuple(_timed(one, where) for one in field(found, "characters", list, where)),
    )
