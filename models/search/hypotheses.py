"""What a search is given and what it returns: log-probabilities, and labellings with their scores, best first."""

from __future__ import annotations

import dataclasses

import numpy as np

# Log-probability of what cannot be: an infinite one would make sums that are not numbers.
IMPOSSIBLE = -1e4


def finite_log_probs(log_probs: np.ndarray) -> np.ndarray:
    """Returns float32 [F, V] in which all is finite: a diverged model has bad texts, it does not break a search."""
    known = np.nan_to_num(np.asarray(log_probs, np.float32), nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    return np.maximum(known, np.float32(IMPOSSIBLE))


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One labelling of a recording.

    Attributes:
        tokens: Ids, collapsed; a space between words is a token too.
        score: What it is ranked by, in nats: log-probability of the audio's labelling, plus what language model, word
            score and hot words add.
        lm_score: Log-probability of the words in the language model, in nats and unweighted; 0 without one.
    """

    tokens: tuple[int, ...]
    score: float
    lm_score: float = 0.0
