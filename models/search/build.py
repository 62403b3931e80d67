"""Builds the search of a config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.search.hot_words import HotWords
from models.search.hypotheses import Hypothesis
from models.search.lexicon import Spelling, read_words
from models.search.lexicon_beam import LexiconBeamSearch
from models.search.options import SearchOptions
from models.search.prefix_beam import PrefixBeamSearch


def build_search(
    *, token_strings: Sequence[str], blank_id: int = 0, **fields: Any
) -> Callable[[np.ndarray], Sequence[Hypothesis]] | None:
    """Builds the search of `config.decode`.

    Args:
        token_strings: Text of each token; a space for the word delimiter, "" for special tokens.
        blank_id: Index of the blank.
        **fields: Fields of `SearchOptions`.

    Returns:
        A function from the log-softmax of one recording's logits, float32 [F, V], to hypotheses, best first; None for
        greedy decoding, which needs no search.

    Raises:
        ValueError: If a field is wrong; names the field, its value and what was wanted.
    """
    options = SearchOptions(**fields)
    if options.method == "greedy":
        return None
    if options.method == "beam":
        hot_words = None
        if options.hot_words:  # without them a vocabulary needs no word delimiter
            spelling = Spelling(token_strings)
            spelled = spelling.spell_hot_words(options.hot_words)
            hot_words = HotWords(spelled, score=options.hot_word_score, delimiter_id=spelling.delimiter_id)
        return PrefixBeamSearch(
            beam_size=options.beam_size,
            beam_tokens=options.beam_tokens,
            beam_threshold=options.beam_threshold,
            num_hypotheses=options.num_hypotheses,
            hot_words=hot_words,
            blank_id=blank_id,
        )
    if not (options.lm or options.lexicon):
        raise ValueError("decode.method=lexicon needs words: set decode.lm to an ARPA file, or decode.lexicon, or both")
    spelling = Spelling(token_strings)
    spelling.spell_hot_words(options.hot_words)  # refuses those that cannot be spelled
    words = read_words(options.lexicon, options.lm)
    return LexiconBeamSearch(
        options=options, spelling=spelling, num_tokens=len(token_strings), words=words, blank_id=blank_id
    )
