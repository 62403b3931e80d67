"""Tokens on frames to words and characters in seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports TensorFlow, which a wrong --output_format should not wait for
    from engine.protocols import Tokenizer, TokenSpan

# A token that won its frame has a probability above 0, but float32 may have rounded it away.
SMALLEST_PROB = 1e-30


@dataclasses.dataclass(frozen=True)
class Timed:
    """A word or a character.

    Attributes:
        text: What was said.
        start_secs: When it begins, from the beginning of the recording.
        end_secs: When it ends.
        confidence: Of a character the mean probability of its token over its frames; of a word the geometric mean of
            its characters' confidences. In [0, 1].
        characters: Of a word.
    """

    text: str
    start_secs: float
    end_secs: float
    confidence: float
    characters: tuple[Timed, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The object of a transcript's JSON: text, start, end (s), confidence, and a word's characters."""
        found: dict[str, Any] = {
            "text": self.text,
            "start": round(self.start_secs, 3),
            "end": round(self.end_secs, 3),
            "confidence": round(self.confidence, 4),
        }
        if self.characters:
            found["characters"] = [character.to_dict() for character in self.characters]
        return found


def find_words(spans: Sequence[TokenSpan], tokenizer: Tokenizer, secs_per_frame: float) -> list[Timed]:
    """Groups characters to words at the tokenizer's spaces.

    Args:
        spans: Tokens with their frames, in order.
        tokenizer: What each token says; joined by spaces, the words are what its `decode` says of all tokens.
        secs_per_frame: Hop of the frames.

    Returns:
        The words; empty without any.
    """
    words: list[Timed] = []
    characters: list[Timed] = []
    pieces = tokenizer.pieces

    def close() -> None:
        if characters:
            words.append(
                Timed(
                    text="".join(character.text for character in characters),
                    start_secs=characters[0].start_secs,
                    end_secs=characters[-1].end_secs,
                    confidence=mean_confidence(characters),
                    characters=tuple(characters),
                )
            )
            characters.clear()

    for token, start_frame, end_frame, prob in spans:
        piece = pieces[token]
        if piece.isspace():
            close()
        elif piece:
            characters.append(Timed(piece, start_frame * secs_per_frame, end_frame * secs_per_frame, prob))
    close()
    return words


def mean_confidence(parts: Sequence[Timed]) -> float:
    """Geometric mean of confidences, 0 without any: what multiplies like probabilities is averaged like them."""
    if not parts:
        return 0.0
    return math.exp(sum(math.log(max(part.confidence, SMALLEST_PROB)) for part in parts) / len(parts))
