"""Keeps the outcome of cutting a recording, in memory and as a row of the journal from which a job continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from common.json_files import MalformedFileError, field, is_kind
from engine.segmentation.segmenter import Segmented


@dataclasses.dataclass(frozen=True)
class Stretch:
    """An utterance, or a stretch that is left out.

    Attributes:
        start_secs: Start in the recording, in seconds.
        end_secs: End in the recording, in seconds.
        text: Its words as a text.
        num_words: Number of its words; of its letters, if the language is written without spaces.
        confidence: Geometric mean of the confidences of all characters.
        worst_word: Least confidence of a word; 0 without words.
        reason: Why it is left out; "" for an utterance.
    """

    start_secs: float
    end_secs: float
    text: str
    num_words: int
    confidence: float
    worst_word: float
    reason: str

    @property
    def duration_secs(self) -> float:
        """Duration, in seconds."""
        return self.end_secs - self.start_secs


_KINDS = get_type_hints(Stretch)


@dataclasses.dataclass(frozen=True)
class CutRecording:
    """A recording that was cut, without the times of its words.

    Attributes:
        path: The recording.
        duration_secs: Its duration, in seconds.
        num_words: Words of its transcript.
        stretches: Utterances and what is left out, in order of time.
    """

    path: str
    duration_secs: float
    num_words: int
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, found: Segmented) -> CutRecording:
        """Keeps what the files and the page show."""
        stretches = (
            Stretch(
                start_secs=float(cut.start_secs),  # a NumPy scalar would round otherwise than what a journal holds
                end_secs=float(cut.end_secs),
                text=found.separator.join(word.text for word in cut.words).strip(),
                num_words=len(cut.words),
                confidence=float(cut.confidence),
                worst_word=float(min((word.confidence for word in cut.words), default=0.0)),
                reason=cut.reason,
            )
            for cut in found.cuts
        )
        return cls(found.path, float(found.duration_secs), found.num_words, tuple(stretches))

    def to_content(self) -> dict[str, Any]:
        """Returns the content of its row in a journal."""
        return {
            "duration_secs": self.duration_secs,
            "num_words": self.num_words,
            "stretches": [dataclasses.asdict(one) for one in self.stretches],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], path: str) -> CutRecording:
        """Returns the recording of a row.

        Args:
            row: A row with what `to_content` returned.
            path: The recording as it is called now.

        Raises:
            MalformedFileError: The row holds something else.
        """
        where = f"the row of {path}"
        stretches = []
        for one in field(row, "stretches", list, where):
            if not is_kind(one, dict):
                raise MalformedFileError(f"{where} has {one!r} among its stretches")
            stretches.append(Stretch(**{name: field(one, name, kind, where) for name, kind in _KINDS.items()}))
        return cls(
            path, field(row, "duration_secs", float, where), field(row, "num_words", int, where), tuple(stretches)
        )
