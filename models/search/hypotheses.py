"""Input and output of the searches: finite log-probabilities, and hypotheses with their scores."""

from __future__ import annotations

import dataclasses

import numpy as np

# Log-probability of an impossible token; finite, because infinite ones add up to NaN.
IMPOSSIBLE = -1e4


def finite_log_probs(log_probs: np.ndarray) -> np.ndarray:
    """Returns log-probabilities as finite float32 [F, V], so that a diverged model does not break a search."""
    known = np.nan_to_num(np.asarray(log_probs, np.float32), nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    return np.maximum(known, np.float32(IMPOSSIBLE))


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One labeling of a recording.

    Attributes:
        tokens: Collapsed token ids, word delimiters included.
        score: Ranking score in nats: log-probability of the labeling plus what the language model, the word score and
            hot words add.
        lm_score: Log-probability of the words in the language model, in nats and unweighted; 0 without one.
    """

    tokens: tuple[int, ...]
    score: float
    lm_score: float = 0.0
