"""Reference and hypothesis side by side, and which word or character is taken for which."""

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
    """A place of an alignment.

    Attributes:
        kind: hit, substituted, deleted or inserted.
        reference: What was said; "" where something was inserted.
        hypothesis: What was heard; "" where something was deleted.
    """

    kind: str
    reference: str
    hypothesis: str


@dataclasses.dataclass
class Confusions:
    """What the errors of a set are.

    Attributes:
        words: (reference word, hypothesis word) -> times; one of them is "" for deletions and insertions.
        characters: The same of characters, a space written as `SPACE`; hits are there too.
        num_utterances: Of these.
    """

    words: Counter[tuple[str, str]]
    characters: Counter[tuple[str, str]]
    num_utterances: int


def align_words(reference: str, hypothesis: str) -> list[Pair]:
    """Returns the places of the alignment that the counts of errors go by."""
    return next(iter(_align([reference], [hypothesis], jiwer.process_words)))


def count_confusions(texts: Iterable[tuple[str, str]]) -> Confusions:
    """Counts what stands for what.

    Args:
        texts: Reference and hypothesis of each utterance.
    """
    pairs = list(texts)
    words: Counter[tuple[str, str]] = Counter()
    characters: Counter[tuple[str, str]] = Counter()
    for first in range(0, len(pairs), _AT_A_TIME):
        references, hypotheses = zip(*pairs[first : first + _AT_A_TIME], strict=True)
        for places in _align(references, hypotheses, jiwer.process_words):
            words.update((place.reference, place.hypothesis) for place in places if place.kind != "hit")
        for places in _align(references, hypotheses, jiwer.process_characters):
            characters.update(
                (place.reference.replace(" ", SPACE), place.hypothesis.replace(" ", SPACE)) for place in places
            )
    return Confusions(words=words, characters=characters, num_utterances=len(pairs))


def _align(references: Sequence[str], hypotheses: Sequence[str], process: Any) -> Iterator[list[Pair]]:
    output = process([_one_spaced(text) for text in references], [_one_spaced(text) for text in hypotheses])
    for reference, hypothesis, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
        places = []
        for chunk in chunks:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            for i in range(max(len(said), len(heard))):
                places.append(Pair(_KINDS[chunk.type], said[i] if said else "", heard[i] if heard else ""))
        yield places


def _one_spaced(text: str) -> str:
    return " ".join(text.split())
