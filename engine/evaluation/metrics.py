"""Word and character error rates: integer counts that add up to one rate over a split."""

from __future__ import annotations

import dataclasses
from typing import Any

import jiwer


@dataclasses.dataclass(frozen=True)
class ErrorCounts:
    """Counts of one minimal edit from reference to hypothesis, or a sum of such counts.

    Attributes:
        hits: Reference tokens that the hypothesis has.
        substitutions: Reference tokens replaced by another one.
        deletions: Reference tokens that the hypothesis lacks.
        insertions: Hypothesis tokens that the reference has no place for.
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
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token; may exceed 1.

        Without reference tokens it is the number of insertions, which is what jiwer gives: 0.0 for
        silence heard as silence, and finite, so that it can be written and compared.
        """
        return self.num_errors / max(self.num_reference, 1)


def count_word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts edits between the words of two normalized texts; white space separates words."""
    return _counts(jiwer.process_words(_one_spaced(reference), _one_spaced(hypothesis)))


def count_char_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts edits between the characters of two normalized texts, spaces between words included.

    White space at the ends does not count and a run of it counts as one space.
    """
    return _counts(jiwer.process_characters(_one_spaced(reference), _one_spaced(hypothesis)))


def _one_spaced(text: str) -> str:
    # jiwer splits words at the space alone, and does not collapse runs of it for characters.
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
    """One utterance's texts and its counts."""

    utterance_id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    chars: ErrorCounts


class TranscriptionScore:
    """Collects transcriptions of one split; the rates are computed once, over all of them.

    The order of `add` and `merge` calls changes nothing. Texts are compared as given: normalize
    both sides first, with the same normalizer.
    """

    def __init__(self) -> None:
        self._scored: dict[str, _Scored] = {}

    def __len__(self) -> int:
        return len(self._scored)

    def add(self, utterance_id: str, reference: str, hypothesis: str) -> None:
        """Scores one utterance.

        Raises:
            ValueError: The utterance was added before: counted twice it would bend the rate.
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
        """Takes over the utterances of `other`, for instance of another replica or host.

        Raises:
            ValueError: An utterance is in both; nothing is merged then.
        """
        common = self._scored.keys() & other._scored.keys()
        if common:
            raise ValueError(_duplicate_message(min(common)))
        self._scored.update(other._scored)

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the split.

        `wer` and `cer` are fractions (0.05 is 5 %); hits, substitutions, deletions, insertions and
        num_words count words; the same names with `char_`, and num_chars, count characters.
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

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Returns the records of the first `count` ids, for a log: the same ones every time."""
        by_id = sorted(self.predictions(), key=lambda record: record["utterance_id"])
        return by_id[:count]

    def predictions(self) -> list[dict[str, Any]]:
        """Returns one record an utterance, worst first.

        Most word errors first; among equals most character errors; then by id.
        """
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
    return f"utterance {utterance_id!r} is scored twice; give every utterance of a split once"
