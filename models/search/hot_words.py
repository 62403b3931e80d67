"""Scores hot words, which a search is to prefer, while they are being spelled."""

from __future__ import annotations

from collections.abc import Sequence


class HotWords:
    """Gives a bonus for each hot word of a labeling.

    A word earns its bonus in equal parts, letter by letter, so that its beginning survives in the beam. The bonus is
    lost again if the word continues differently or ends too soon.
    """

    def __init__(self, words: Sequence[Sequence[int]], *, score: float, delimiter_id: int) -> None:
        """Computes the bonus of every beginning of a word.

        Args:
            words: Token ids of each word.
            score: Bonus of a word in nats.
            delimiter_id: Id of the token between words.
        """
        self._delimiter_id = delimiter_id
        self._score = score
        self._whole = {tuple(word) for word in words if word}
        # Maps the beginning of a word to its bonus; of several words, the one nearest to its end counts.
        self._partial: dict[tuple[int, ...], float] = {}
        for word in self._whole:
            for length in range(1, len(word) + 1):
                begun = self._partial.get(word[:length], 0.0)
                self._partial[word[:length]] = max(begun, score * length / len(word), key=abs)

    def __bool__(self) -> bool:
        return bool(self._whole)

    def begin(self) -> tuple[tuple[int, ...], float]:
        """Returns the state of an empty labeling: its unfinished word, and the bonus of its finished words."""
        return (), 0.0

    def extend(self, state: tuple[tuple[int, ...], float], token: int) -> tuple[tuple[int, ...], float]:
        """Returns the state after one more token."""
        word, earned = state
        if token == self._delimiter_id:
            return (), earned + self._score * (word in self._whole)
        return (*word, token), earned

    def score(self, state: tuple[tuple[int, ...], float]) -> float:
        """Returns the bonus of a labeling that may continue."""
        word, earned = state
        return earned + self._partial.get(word, 0.0)

    def final_score(self, state: tuple[tuple[int, ...], float]) -> float:
        """Returns the bonus of a labeling that ends here."""
        word, earned = state
        return earned + self._score * (word in self._whole)
