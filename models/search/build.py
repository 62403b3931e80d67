"""The search that a config asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.search.hot_words import HotWords
from models.search.hypotheses import Hypothesis
from models.search.lexicon import Spelling, read_words
from models.search.lexicon_beam import LexiconBeamSearch
from models.search.prefix_beam import PrefixBeamSearch

METHODS = ("greedy", "beam", "lexicon")


def build_search(
    *,
    pieces: Sequence[str],
    method: str,
    beam_size: int,
    beam_tokens: int,
    beam_threshold: float,
    num_hypotheses: int,
    lm: str,
    lexicon: str,
    lm_weight: float,
    word_score: float,
    hot_words: Sequence[str],
    hot_word_score: float,
    blank_id: int = 0,
) -> Callable[[np.ndarray], Sequence[Hypothesis]] | None:
    """Builds the search of `config.decode`.

    Args:
        pieces: What each token says.
        method: One of `METHODS`; the other arguments are the fields of config.decode.
        beam_size: See method; so is what follows.
        beam_tokens: See method.
        beam_threshold: See method.
        num_hypotheses: See method.
        lm: See method.
        lexicon: See method.
        lm_weight: See method.
        word_score: See method.
        hot_words: See method.
        hot_word_score: See method.
        blank_id: Index of the blank.

    Returns:
        Log-softmax of one recording's logits, float32 [F, V] -> hypotheses, best first; None for greedy, which needs no
        search.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    if method not in METHODS:
        raise ValueError(f"decode.method={method!r}: wanted one of {', '.join(METHODS)}")
    for name, value, least in (
        ("beam_size", beam_size, 1),
        ("num_hypotheses", num_hypotheses, 1),
        ("beam_tokens", beam_tokens, 0),
    ):
        if value < least:
            raise ValueError(f"decode.{name} must be at least {least}, got {value}")
    if not beam_threshold > 0:
        raise ValueError(f"decode.beam_threshold must be above 0, got {beam_threshold:g}")
    if method != "lexicon" and (lm or lexicon):
        field, path = ("lm", lm) if lm else ("lexicon", lexicon)
        raise ValueError(f"decode.{field}={path} is of no use to decode.method={method}; set decode.method=lexicon")
    if method == "greedy":
        for name, is_set in (("hot_words", bool(hot_words)), ("num_hypotheses", num_hypotheses > 1)):
            if is_set:
                raise ValueError(f"decode.{name} is set, but method greedy searches nothing; set beam or lexicon")
        return None
    if method == "beam" and not hot_words:  # which needs no words, so no space between them
        hot = None
    else:
        spelling = Spelling(pieces)
        hot = HotWords(spelling.spell_hot_words(hot_words), score=hot_word_score, delimiter_id=spelling.delimiter_id)
    if method == "beam":
        return PrefixBeamSearch(
            beam_size=beam_size,
            beam_tokens=beam_tokens,
            beam_threshold=beam_threshold,
            num_hypotheses=num_hypotheses,
            hot_words=hot,
            blank_id=blank_id,
        )
    if not (lm or lexicon):
        raise ValueError("decode.method=lexicon needs words: set decode.lm to an ARPA file, or decode.lexicon, or both")
    return LexiconBeamSearch(
        spelling=spelling,
        num_tokens=len(pieces),
        words=read_words(lexicon, lm),
        language_model=lm,
        lm_weight=lm_weight,
        word_score=word_score,
        beam_size=beam_size,
        beam_tokens=beam_tokens,
        beam_threshold=beam_threshold,
        num_hypotheses=num_hypotheses,
        hot_words=hot_words,
        hot_word_score=hot_word_score,
        blank_id=blank_id,
    )
