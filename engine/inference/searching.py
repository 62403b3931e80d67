"""A search over the frames of one recording: words with times, and the texts that came next."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.inference.windows import Piece
from engine.inference.words import Timed, find_words
from engine.protocols import Aligner, Hypothesis, Search, Tokenizer

# Without a space for so long it is cut where it is: a minute of speech has many, and a search keeps all it has seen.
_LONGEST_FRAMES = 3_000


class Alternative(NamedTuple):
    """A text of a recording and what it is ranked by, in nats."""

    text: str
    score: float


class SearchReader:
    """Finds words with a search; times and confidences are those of the forced alignment of its best text."""

    def __init__(self, *, search: Search, aligner: Aligner, tokenizer: Tokenizer, num_alternatives: int = 0) -> None:
        """Keeps its arguments.

        Args:
            search: Log-probabilities to hypotheses.
            aligner: A text to the frames of its tokens.
            tokenizer: What the tokens say.
            num_alternatives: Texts returned with their scores, the best one among them.
        """
        self._search = search
        self._aligner = aligner
        self._tokenizer = tokenizer
        self._num_alternatives = num_alternatives
        self._spaces = [index for index, piece in enumerate(tokenizer.pieces) if piece.isspace()]

    def read(
        self, pieces: Iterable[Piece], *, secs_per_frame: float
    ) -> tuple[tuple[Timed, ...], tuple[Alternative, ...]]:
        """Returns the words of one recording's consecutive pieces, and its best texts, best first.

        Of a recording of several pieces each part between two cuts is searched by itself; the best texts of the whole
        are the best sums over the parts.
        """
        words: list[Timed] = []
        best = [Alternative("", 0.0)]
        for part in cut_at_spaces(pieces, self._spaces):
            hypotheses = self._search(part.log_probs)
            found = self._aligner(part.log_probs, hypotheses[0].tokens)
            first = part.start_frame
            spans = [(token, start + first, end + first, prob) for token, start, end, prob in found.spans]
            words += find_words(spans, self._tokenizer, secs_per_frame)
            if self._num_alternatives:
                best = self._extend(best, hypotheses)
        return tuple(words), tuple(best) if self._num_alternatives else ()

    def _extend(self, before: Sequence[Alternative], hypotheses: Sequence[Hypothesis]) -> list[Alternative]:
        scores: dict[str, float] = {}
        for text, score in before:
            for hypothesis in hypotheses:
                joined = f"{text} {self._tokenizer.decode(hypothesis.tokens)}".strip()
                scores[joined] = max(scores.get(joined, -np.inf), score + hypothesis.score)
        best = heapq.nlargest(self._num_alternatives, scores.items(), key=lambda item: item[1])
        return [Alternative(text, score) for text, score in best]


def cut_at_spaces(pieces: Iterable[Piece], spaces: Sequence[int], *, longest: int = _LONGEST_FRAMES) -> Iterator[Piece]:
    """Yields the same frames, cut after the last space of each piece instead of where the pieces end.

    A word that lies across two pieces is then searched in one. What is held back is carried into the next piece.

    Args:
        pieces: Consecutive.
        spaces: Tokens between words.
        longest: Frames after which a stretch without a space is cut all the same.
    """
    held: Piece | None = None
    for piece in pieces:
        if held is None:
            held = piece
            continue
        likeliest = held.log_probs.argmax(axis=-1)
        is_space = np.flatnonzero(np.isin(likeliest, spaces))
        cut = int(is_space[-1]) + 1 if len(is_space) else len(likeliest) * (len(likeliest) >= longest)
        if cut:
            yield Piece(held.log_probs[:cut], held.start_frame)
        rest = held.log_probs[cut:]
        held = Piece(np.concatenate([rest, piece.log_probs]), held.start_frame + cut)
    if held is not None and len(held.log_probs):
        yield held
