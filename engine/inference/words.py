"""Converts tokens with frames to words and characters with times in seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports TensorFlow, which is slow, and a wrong --output_format is reported before
    from engine.protocols import Tokenizer, TokenSpan

# The best token of a frame has a positive probability, but float32 may round it to 0.
SMALLEST_PROB = 1e-30


@dataclasses.dataclass(frozen=True)
class Timed:
    """A word or a character with its time.

    Attributes:
        text: The word or character.
        start_secs: Start, in seconds from the beginning of the recording.
        end_secs: End, in seconds from the beginning of the recording.
        confidence: In [0, 1]: for a character, the mean probability of its token over its frames; for a word, the
            geometric mean of its characters' confidences.
        characters: Characters of a word; empty for a character.
    """

    text: str
    start_secs: float
    end_secs: float
    confidence: float
    characters: tuple[Timed, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the object for a transcript's JSON: text, start and end (s), confidence, a word's characters."""
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
    """Groups characters into words at the tokenizer's spaces, and before tokens that begin with one.

    Joined by spaces, the words are the text that the tokenizer's `decode` returns for the same tokens.

    Args:
        spans: Tokens with their frames, in order.
        tokenizer: Tokenizer of the model.
        secs_per_frame: Hop between frames, in seconds.
    """
    words: list[Timed] = []
    characters: list[Timed] = []

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
        text = tokenizer.token_strings[token]
        if text[:1].isspace():
            close()
        if text := text.strip():
            characters.append(Timed(text, start_frame * secs_per_frame, end_frame * secs_per_frame, prob))
    close()
    return words


def text_confidence(words: Sequence[Timed]) -> float:
    """Returns the geometric mean of the confidences of all characters of some words, 0 without any."""
    return mean_confidence([character for word in words for character in word.characters])


def mean_confidence(parts: Sequence[Timed]) -> float:
    """Returns the geometric mean of confidences, 0 without any."""
    if not parts:
        return 0.0
    return math.exp(sum(math.log(max(part.confidence, SMALLEST_PROB)) for part in parts) / len(parts))
