"""Aligns a transcript that is not exactly what was said: either may lack words of the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.ctc.alignment import MAX_LATTICE, TokenSpan

# How a state was reached: from itself, from the one before, from two before, or from a pause further back.
_STAY, _NEXT, _DIRECT, _SKIPPED = range(4)


class WordAlignment(NamedTuple):
    """The most likely path through a transcript.

    Attributes:
        words: For each word, a span for each of its tokens; None for a word that was not said.
        unknown_frames: For the pause before each word and the one after the last, the frames in which something was
            said that is not in the transcript.
    """

    words: list[list[TokenSpan] | None]
    unknown_frames: list[int]


def align_words(
    log_probs: np.ndarray,
    words: Sequence[Sequence[int]],
    *,
    separators: Sequence[int] = (),
    unknown_loss: float = 2.0,
    skip_loss: float = 3.0,
    blank_id: int = 0,
) -> WordAlignment:
    """Finds the most likely path of words between which anything may be said, and of which any may be left out.

    It is Viterbi over the CTC lattice (Graves et al. 2006, section 4.1), in which the pauses between words are more
    than blanks. A frame of a pause is a blank, a separator, or for `unknown_loss` any token: the star of Pratap et al.
    2023 (https://arxiv.org/abs/2305.13516), with a price. A path may go from a pause to any later one, for `skip_loss`
    for each word in between.

    Args:
        log_probs: float [F, V], log-softmax of the logits.
        words: Token ids of each word, without separators; none is empty.
        separators: Ids that stand between words, such as that of the space.
        unknown_loss: Nats that a frame of unknown speech costs beside the likeliest token.
        skip_loss: Nats that a word costs which was not said.
        blank_id: Index of the blank.

    Raises:
        ValueError: The lattice would not fit the memory.
    """
    labels = np.array([token for word in words for token in word], np.int64)
    num_frames, num_states = len(log_probs), 2 * len(labels) + 1
    if num_frames * num_states > MAX_LATTICE:
        raise ValueError(f"{len(labels)} labels over {num_frames} frames are too many to align at once; split them")
    if not num_frames:
        return WordAlignment([None] * len(words), [0] * (len(words) + 1))
    known = log_probs[:, [blank_id, *separators]].max(axis=1)
    unknown = log_probs.max(axis=1) - unknown_loss
    of_pause = np.maximum(known, unknown)
    # States: pause or blank, label, pause or blank, label, ..., pause.
    pauses = 2 * np.cumsum([0, *map(len, words)])
    tokens = np.full(num_states, blank_id, np.int64)
    tokens[1::2] = labels
    may_jump = np.zeros(num_states, bool)
    may_jump[3::2] = labels[1:] != labels[:-1]
    price = skip_loss * np.arange(len(pauses))
    steps = np.zeros((num_frames, num_states), np.int8)
    sources = np.zeros((num_frames, len(pauses)), np.int32)  # pause that each pause was reached from
    score = np.full(num_states, -np.inf)
    score[0] = 0.0  # before the first frame; its path stands in the first pause, or steps to the first label
    for frame in range(num_frames):
        candidates = np.full((3, num_states), -np.inf)
        candidates[_STAY] = score
        candidates[_NEXT, 1:] = score[:-1]
        candidates[_DIRECT, 2:] = np.where(may_jump[2:], score[:-2], -np.inf)
        steps[frame] = candidates.argmax(axis=0)
        best = candidates.max(axis=0)
        # Words are left out between two frames, as many as pay.
        standing = best[pauses] + price
        furthest = np.maximum.accumulate(standing)
        is_new = np.append(True, standing[1:] > furthest[:-1])
        sources[frame] = np.maximum.accumulate(np.where(is_new, np.arange(len(pauses)), 0))
        skipped = sources[frame] != np.arange(len(pauses))
        best[pauses] = furthest - price
        steps[frame, pauses[skipped]] = _SKIPPED
        emission = log_probs[frame, tokens]
        emission[pauses] = of_pause[frame]
        score = best + emission
    path = _trace(steps, sources, pauses, _last_state(score, pauses, price))
    return _read_path(path, log_probs, words, pauses, is_unknown=unknown > known)


def _last_state(score: np.ndarray, pauses: np.ndarray, price: np.ndarray) -> int:
    """Returns the state in which the likeliest path ends; words that are left after it were not said."""
    at_pauses = score[pauses] - (price[-1] - price)
    pause = int(pauses[at_pauses.argmax()])
    # A recording may end within the last token of a word.
    ends = pauses[1:] - 1
    if len(ends):
        at_ends = score[ends] - (price[-1] - price[1:])
        if at_ends.max() > at_pauses.max():
            return int(ends[at_ends.argmax()])
    return pause


def _trace(steps: np.ndarray, sources: np.ndarray, pauses: np.ndarray, state: int) -> np.ndarray:
    """Returns the state of each frame."""
    path = np.empty(len(steps), np.int64)
    place = {int(pause): position for position, pause in enumerate(pauses)}
    for frame in range(len(steps) - 1, -1, -1):
        path[frame] = state
        if steps[frame, state] == _SKIPPED:
            state = int(pauses[sources[frame, place[state]]])
        step = int(steps[frame, state])
        state -= 0 if step == _SKIPPED else step
    return path


def _read_path(
    path: np.ndarray,
    log_probs: np.ndarray,
    words: Sequence[Sequence[int]],
    pauses: np.ndarray,
    *,
    is_unknown: np.ndarray,
) -> WordAlignment:
    """Returns what the states of all frames say about each word and pause."""
    found: list[list[TokenSpan] | None] = []
    first = np.searchsorted(path, np.arange(pauses[-1] + 2), "left")  # a path never falls
    for word, start in zip(words, pauses[:-1], strict=True):
        spans = []
        for position, token in enumerate(word):
            state = start + 2 * position + 1
            begin, end = int(first[state]), int(first[state + 1])
            if begin < end:
                prob = float(np.exp(log_probs[begin:end, token]).mean())
                spans.append(TokenSpan(int(token), begin, end, prob))
        found.append(spans if len(spans) == len(word) else None)
    unknown = [int(is_unknown[path == pause].sum()) for pause in pauses]
    return WordAlignment(found, unknown)
