"""Aligns references with hypotheses and counts the confusions of words and characters."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jiwer

_KINDS = {"equal": "hit", "substitute": "substituted", "delete": "deleted", "insert": "inserted"}
_AT_A_TIME = 2_000  # utterances aligned in one call
SPACE = "␣"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One position of an alignment.

    Attributes:
        kind: hit, substituted, deleted or inserted.
        reference: Reference word or character; "" for an insertion.
        hypothesis: Recognized word or character; "" for a deletion.
    """

    kind: str
    reference: str
    hypothesis: str


@dataclasses.dataclass
class Confusions:
    """Counts of the confusions in a set.

    Attributes:
        words: (reference word, recognized word) -> count, hits excluded; one side is "" for a deletion or insertion.
        characters: (reference character, recognized character) -> count, hits included; a space is `SPACE`.
        num_utterances: Number of utterances counted.
    """

    words: Counter[tuple[str, str]]
    characters: Counter[tuple[str, str]]
    num_utterances: int


def align_words(reference: str, hypothesis: str) -> list[Pair]:
    """Returns the word alignment that the error counts are based on."""
    return next(iter(_align([reference], [hypothesis], jiwer.process_words)))


def count_confusions(texts: Iterable[tuple[str, str]]) -> Confusions:
    """Counts the confusions of words and characters.

    Args:
        texts: Reference and hypothesis of each utterance.
    """
    both = list(texts)
    words: Counter[tuple[str, str]] = Counter()
    characters: Counter[tuple[str, str]] = Counter()
    for first in range(0, len(both), _AT_A_TIME):
        references, hypotheses = zip(*both[first : first + _AT_A_TIME], strict=True)
        for pairs in _align(references, hypotheses, jiwer.process_words):
            words.update((pair.reference, pair.hypothesis) for pair in pairs if pair.kind != "hit")
        for pairs in _align(references, hypotheses, jiwer.process_characters):
            characters.update(
                (pair.reference.replace(" ", SPACE), pair.hypothesis.replace(" ", SPACE)) for pair in pairs
            )
    return Confusions(words=words, characters=characters, num_utterances=len(both))


def _align(references: Sequence[str], hypotheses: Sequence[str], process: Any) -> Iterator[list[Pair]]:
    output = process([_one_spaced(text) for text in references], [_one_spaced(text) for text in hypotheses])
    for reference, hypothesis, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
        pairs = []
        for chunk in chunks:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            for i in range(max(len(said), len(heard))):
                pairs.append(Pair(_KINDS[chunk.type], said[i] if said else "", heard[i] if heard else ""))
        yield pairs


def _one_spaced(text: str) -> str:
    return " ".join(text.split())
