"""Decodes a recording with a beam search: words with times, and the next best texts."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.inference.windows import LogitsChunk
from engine.inference.words import Timed, find_words
from engine.protocols import Aligner, Hypothesis, Search, Tokenizer

# A stretch without a space is cut after this many frames, because a search keeps everything that it has seen.
_LONGEST_FRAMES = 3_000


class Alternative(NamedTuple):
    """A text of a recording and its score, in nats."""

    text: str
    score: float


class BeamSearchDecoder:
    """Finds words with a beam search; times and confidences come from a forced alignment of the best text."""

    def __init__(self, *, search: Search, aligner: Aligner, tokenizer: Tokenizer, num_alternatives: int = 0) -> None:
        """Prepares the decoder.

        Args:
            search: Log-probabilities to hypotheses.
            aligner: Log-probabilities and tokens to the frames of the tokens.
            tokenizer: Tokenizer of the model.
            num_alternatives: Number of texts to return with their scores, including the best one; 0 = none.
        """
        self._search = search
        self._aligner = aligner
        self._tokenizer = tokenizer
        self._num_alternatives = num_alternatives
        self._spaces = [index for index, text in enumerate(tokenizer.token_strings) if text.isspace()]

    def decode(
        self, chunks: Iterable[LogitsChunk], *, secs_per_frame: float
    ) -> tuple[tuple[Timed, ...], tuple[Alternative, ...]]:
        """Returns the words of a recording and its best texts, best first.

        Each stretch between two cuts is searched by itself. The scores of the whole texts are sums over the stretches.

        Args:
            chunks: Consecutive chunks of the recording.
            secs_per_frame: Hop between frames, in seconds.
        """
        words: list[Timed] = []
        best = [Alternative("", 0.0)]
        for chunk in cut_at_spaces(chunks, self._spaces):
            hypotheses = self._search(chunk.log_probs)
            found = self._aligner(chunk.log_probs, hypotheses[0].tokens)
            first = chunk.start_frame
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


def cut_at_spaces(
    chunks: Iterable[LogitsChunk], spaces: Sequence[int], *, longest: int = _LONGEST_FRAMES
) -> Iterator[LogitsChunk]:
    """Yields the same frames, cut after the last space of each chunk, so that no word is cut in two.

    The frames after that space are carried over into the next chunk.

    Args:
        chunks: Consecutive chunks of a recording.
        spaces: Ids of the tokens between words.
        longest: Number of frames after which a stretch without a space is cut anyway.
    """
    held: LogitsChunk | None = None
    for chunk in chunks:
        if held is None:
            held = chunk
            continue
        best_tokens = held.log_probs.argmax(axis=-1)
        is_space = np.flatnonzero(np.isin(best_tokens, spaces))
        cut = int(is_space[-1]) + 1 if len(is_space) else len(best_tokens) * (len(best_tokens) >= longest)
        if cut:
            yield LogitsChunk(held.log_probs[:cut], held.start_frame)
        rest = held.log_probs[cut:]
        held = LogitsChunk(np.concatenate([rest, chunk.log_probs]), held.start_frame + cut)
    if held is not None and len(held.log_probs):
        yield held
