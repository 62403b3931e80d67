"""What a search returns: labellings with their scores, best first."""

from __future__ import annotations

import dataclasses


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
