"""A vocabulary, a small bigram model and emissions, for tests of searches."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from models.search.options import SearchOptions

# Elsewhere it is part of the extra `test`: where it is missing there, its tests fail.
needs_flashlight = pytest.mark.skipif(
    sys.version_info >= (3, 13) and importlib.util.find_spec("flashlight") is None,
    reason="flashlight-text, of the extra lm, has no wheel for Python 3.13",
)

PIECES = ("", "", "", "", " ", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")

# Decimal logarithms; after THE a CAT is likely, a CAR hardly.
ARPA = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-1.0\t</s>
-0.8\tTHE\t-0.3
-0.9\tCAT\t-0.3
-0.7\tCAR\t-0.3

\\2-grams:
-0.2\t<s> THE
-0.1\tTHE CAT
-2.0\tTHE CAR

\\end\\
"""


def lexicon_options(**fields) -> SearchOptions:
    """Options of a search over a lexicon without a language model."""
    neutral = {"method": "lexicon", "beam_size": 50, "beam_tokens": 0, "beam_threshold": 25.0, "num_hypotheses": 1}
    neutral |= {"lm": "", "lexicon": "", "lm_weight": 1.0, "word_score": 0.0, "hot_words": (), "hot_word_score": 0.0}
    return SearchOptions(**{**neutral, **fields})


def encode(text: str) -> list[int]:
    return [PIECES.index(character) for character in text]


def decode(tokens) -> str:
    return "".join(PIECES[token] for token in tokens)


def emissions(text: str, *, unsure: dict[int, tuple[str, float]] | None = None) -> np.ndarray:
    """Log-probabilities [F, V] that spell a text, a blank behind each character.

    Args:
        text: What is said.
        unsure: Position in the text -> another character, and its probability.
    """
    probs = np.full([2 * len(text), len(PIECES)], 1e-4)
    for position, character in enumerate(text):
        probs[2 * position, PIECES.index(character)] = 0.9
        probs[2 * position + 1, 0] = 0.9
        if unsure and position in unsure:
            other, prob = unsure[position]
            probs[2 * position, PIECES.index(other)] = prob
            probs[2 * position, PIECES.index(character)] = 1 - prob
    return np.log(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
