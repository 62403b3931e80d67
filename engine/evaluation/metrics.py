"""Counts word and character errors and computes error rates over a whole split."""

from __future__ import annotations

import dataclasses
from typing import Any

import jiwer


@dataclasses.dataclass(frozen=True)
class ErrorCounts:
    """Counts the edits of a minimal alignment of reference and hypothesis, or of several alignments.

    Attributes:
        hits: Number of reference tokens that the hypothesis has.
        substitutions: Number of reference tokens replaced by another token.
        deletions: Number of reference tokens that the hypothesis lacks.
        insertions: Number of additional hypothesis tokens.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            hits=self.hits + other.hits,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
        )

    @property
    def num_reference(self) -> int:
        """Number of reference tokens."""
        return self.hits + self.substitutions + self.deletions

    @property
    def num_errors(self) -> int:
        """Sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token; may exceed 1.

        Without reference tokens it is the number of insertions, as in jiwer: 0.0 for correctly recognized silence, and
        always finite.
        """
        return self.num_errors / max(self.num_reference, 1)


def count_word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts edits between the words of two normalized texts; white space separates words."""
    return _counts(jiwer.process_words(_one_spaced(reference), _one_spaced(hypothesis)))


def count_char_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts edits between the characters of two normalized texts, including spaces between words.

    White space at the ends is ignored, and a run of white space counts as one space.
    """
    return _counts(jiwer.process_characters(_one_spaced(reference), _one_spaced(hypothesis)))


def _one_spaced(text: str) -> str:
    # jiwer splits words at spaces only, and does not collapse runs of spaces for characters.
    return " ".join(text.split())


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    return ErrorCounts(
        hits=output.hits,
        substitutions=output.substitutions,
        deletions=output.deletions,
        insertions=output.insertions,
    )


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Texts and error counts of one utterance."""

    utterance_id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    chars: ErrorCounts


class TranscriptionScore:
    """Collects the transcriptions of one split and computes rates over all of them.

    The order of `add` and `merge` calls does not matter. Texts are compared as given: normalize references and
    hypotheses first, with the same normalizer.
    """

    def __init__(self) -> None:
        self._scored: dict[str, _Scored] = {}

    def __len__(self) -> int:
        return len(self._scored)

    def add(self, utterance_id: str, reference: str, hypothesis: str) -> None:
        """Scores one utterance.

        Raises:
            ValueError: The utterance was added before.
        """
        if utterance_id in self._scored:
            raise ValueError(_duplicate_message(utterance_id))
        self._scored[utterance_id] = _Scored(
            utterance_id=utterance_id,
            reference=reference,
            hypothesis=hypothesis,
            words=count_word_errors(reference, hypothesis),
            chars=count_char_errors(reference, hypothesis),
        )

    def merge(self, other: TranscriptionScore) -> None:
        """Adds the utterances of `other`, for example of another host.

        Raises:
            ValueError: An utterance is in both; nothing was merged.
        """
        common = self._scored.keys() & other._scored.keys()
        if common:
            raise ValueError(_duplicate_message(min(common)))
        self._scored.update(other._scored)

    def summary(self) -> dict[str, Any]:
        """Returns the metrics of the split.

        `wer` and `cer` are fractions (0.05 is 5 %). `hits`, `substitutions`, `deletions`, `insertions` and `num_words`
        count words; the same names with `char_`, and `num_chars`, count characters.
        """
        words = sum((scored.words for scored in self._scored.values()), ErrorCounts())
        chars = sum((scored.chars for scored in self._scored.values()), ErrorCounts())
        return {
            "wer": words.rate,
            "cer": chars.rate,
            "hits": words.hits,
            "substitutions": words.substitutions,
            "deletions": words.deletions,
            "insertions": words.insertions,
            "num_words": words.num_reference,
            "num_utterances": len(self._scored),
            "char_hits": chars.hits,
            "char_substitutions": chars.substitutions,
            "char_deletions": chars.deletions,
            "char_insertions": chars.insertions,
            "num_chars": chars.num_reference,
        }

    def hypotheses(self) -> list[tuple[str, str]]:
        """Returns the id and the hypothesis of each utterance."""
        return [(scored.utterance_id, scored.hypothesis) for scored in self._scored.values()]

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Returns the records of the first `count` ids, the same ones in every evaluation."""
        return sorted(self.predictions(), key=lambda record: record["utterance_id"])[:count]

    def predictions(self) -> list[dict[str, Any]]:
        """Returns a record for each utterance, sorted by word errors, then character errors, then id."""
        ordered = sorted(
            self._scored.values(),
            key=lambda scored: (
                -scored.words.num_errors,
                -scored.chars.num_errors,
                scored.utterance_id,
            ),
        )
        return [
            {
                "utterance_id": scored.utterance_id,
                "reference": scored.reference,
                "hypothesis": scored.hypothesis,
                "errors": scored.words.num_errors,
                "substitutions": scored.words.substitutions,
                "deletions": scored.words.deletions,
                "insertions": scored.words.insertions,
                "num_words": scored.words.num_reference,
                "char_errors": scored.chars.num_errors,
                "num_chars": scored.chars.num_reference,
            }
            for scored in ordered
        ]


def _duplicate_message(utterance_id: str) -> str:
    return f"utterance {utterance_id!r} is scored twice; score each utterance of a split once"
