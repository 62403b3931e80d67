"""Counts which characters and words of a set are taken for which others."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from engine.report.alignment import SPACE, Confusions

_MAX_CHARACTERS = 24  # rows of the matrix
_MAX_WORDS = 100  # rows of the table of words


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Confusion matrix of characters.

    Attributes:
        symbols: The most confused characters.
        rows: (reference character, its occurrences, [(count, ratio of the occurrences) for each of `symbols` and for
            a deletion]); the diagonal counts correct characters.
        inserted: Insertions of each of `symbols`.
    """

    symbols: list[str]
    rows: list[tuple[str, int, list[tuple[int, float]]]]
    inserted: list[int]


@dataclasses.dataclass(frozen=True)
class WordConfusion:
    """A substituted, deleted or inserted word; the absent side is empty, `num_said` counts the reference word."""

    kind: str
    reference: str
    hypothesis: str
    count: int
    num_said: int


def count_characters(found: Confusions, references: Iterable[str]) -> Matrix | None:
    """Returns the matrix of the most confused characters; None without errors.

    Args:
        found: Confusions of the utterances with errors.
        references: The references of all utterances.
    """
    errors = {pair: count for pair, count in found.characters.items() if pair[0] != pair[1]}
    weight: Counter[str] = Counter()
    for pair, count in errors.items():
        for symbol in pair:
            weight[symbol] += count
    del weight[""]
    symbols = sorted(symbol for symbol, _ in weight.most_common(_MAX_CHARACTERS))
    if not symbols:
        return None
    said = Counter("".join(" ".join(reference.split()) for reference in references).replace(" ", SPACE))
    rows = [(symbol, said[symbol], _matrix_row(symbol, symbols, errors, said[symbol])) for symbol in symbols]
    return Matrix(symbols, rows, [errors.get(("", symbol), 0) for symbol in symbols])


def _matrix_row(
    reference: str, symbols: Sequence[str], errors: Mapping[tuple[str, str], int], num_said: int
) -> list[tuple[int, float]]:
    num_wrong = sum(count for pair, count in errors.items() if pair[0] == reference)
    counts = [
        num_said - num_wrong if hypothesis == reference else errors.get((reference, hypothesis), 0)
        for hypothesis in (*symbols, "")
    ]
    return [(count, count / max(num_said, 1)) for count in counts]


def rank_words(found: Confusions, references: Iterable[str]) -> list[WordConfusion]:
    """Returns the confusions of words, most frequent first; arguments as those of `count_characters`."""
    said = Counter(itertools.chain.from_iterable(reference.split() for reference in references))
    ordered = sorted(found.words.items(), key=lambda item: (-item[1], item[0]))
    return [
        WordConfusion(
            kind="inserted" if not reference else "deleted" if not hypothesis else "substituted",
            reference=reference,
            hypothesis=hypothesis,
            count=count,
            num_said=said[reference],
        )
        for (reference, hypothesis), count in ordered[:_MAX_WORDS]
    ]
