"""Finds the frames of each token, on the best path or for a given transcript (forced alignment)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Largest number of frames x states, one byte each; about 25 minutes of speech.
MAX_LATTICE = 2_000_000_000


class TokenSpan(NamedTuple):
    """One token of a transcript with its frames.

    Attributes:
        token: Token id.
        start_frame: First frame of the token.
        end_frame: First frame after the token.
        prob: Mean probability of the token over its frames, in [0, 1].
    """

    token: int
    start_frame: int
    end_frame: int
    prob: float


class Alignment(NamedTuple):
    """The most likely path of a transcript.

    Attributes:
        spans: One span for each token of the transcript.
        log_prob: Log-probability of the path in nats.
    """

    spans: list[TokenSpan]
    log_prob: float


def collapse_path(tokens: np.ndarray, probs: np.ndarray, *, blank_id: int = 0) -> list[TokenSpan]:
    """Merges the repeats of a path and drops its blanks.

    Args:
        tokens: Integers [F], one token per frame, such as the argmax of the logits.
        probs: float [F], probabilities of the tokens.
        blank_id: Index of the blank.

    Returns:
        The remaining tokens with their frames. For the argmax these are the tokens of
        `models.ctc.greedy.greedy_decode`.
    """
    if not len(tokens):
        return []
    starts = np.flatnonzero(np.diff(tokens, prepend=tokens[0] - 1))
    ends = np.append(starts[1:], len(tokens))
    sums = np.add.reduceat(np.asarray(probs, np.float64), starts)
    return [
        TokenSpan(int(tokens[start]), int(start), int(end), float(total / (end - start)))
        for start, end, total in zip(starts, ends, sums, strict=True)
        if tokens[start] != blank_id
    ]


def greedy_spans(log_probs: np.ndarray, *, blank_id: int = 0) -> list[TokenSpan]:
    """Returns the tokens of the best path of log-probabilities, float [F, V], with their frames."""
    tokens = np.argmax(log_probs, axis=-1)
    return collapse_path(tokens, np.exp(log_probs.max(axis=-1)) if len(tokens) else tokens, blank_id=blank_id)


def forced_align(log_probs: np.ndarray, labels: Sequence[int], *, blank_id: int = 0) -> Alignment:
    """Finds the most likely path of a transcript by Viterbi over the CTC lattice (Graves et al. 2006, section 4.1).

    Args:
        log_probs: float [F, V], log-softmax of the logits.
        labels: Integers [L], token ids of the transcript.
        blank_id: Index of the blank.

    Raises:
        ValueError: If the frames cannot hold the labels (labels + adjacent repeats > frames), or the lattice would not
            fit the memory.
    """
    num_frames = len(log_probs)
    wanted = np.asarray(labels, np.int64)
    repeats = int(np.count_nonzero(wanted[1:] == wanted[:-1]))
    if len(wanted) + repeats > num_frames:
        raise ValueError(f"{len(wanted)} labels with {repeats} adjacent repeats do not fit {num_frames} frames")
    if not len(wanted):
        return Alignment([], float(log_probs[:, blank_id].sum()))
    if num_frames * (2 * len(wanted) + 1) > MAX_LATTICE:
        raise ValueError(f"{len(wanted)} labels over {num_frames} frames are too many to align at once; split them")
    # States: blank, label, blank, label ... blank. A path may go from label to label directly unless the label repeats.
    states = np.full(2 * len(wanted) + 1, blank_id, np.int64)
    states[1::2] = wanted
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = wanted[1:] != wanted[:-1]
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    steps = np.zeros((num_frames, len(states)), np.int8)  # number of states back to the best predecessor
    for frame in range(1, num_frames):
        one_back = np.append(-np.inf, score[:-1])
        two_back = np.where(may_skip, np.append([-np.inf, -np.inf], score[:-2]), -np.inf)
        candidates = np.stack([score, one_back, two_back])
        steps[frame] = np.argmax(candidates, axis=0)
        score = np.max(candidates, axis=0) + log_probs[frame, states]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    log_prob = float(score[state])
    path = np.empty(num_frames, np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    probs = np.exp(log_probs[np.arange(num_frames), states[path]])
    # The path never falls, so the frames of a label are consecutive.
    starts = np.searchsorted(path, np.arange(1, len(states), 2), side="left")
    ends = np.searchsorted(path, np.arange(1, len(states), 2), side="right")
    spans = [
        TokenSpan(token, int(start), int(end), float(probs[start:end].mean()))
        for token, start, end in zip(wanted.tolist(), starts, ends, strict=True)
    ]
    return Alignment(spans, log_prob)
