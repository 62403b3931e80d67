"""Options of the searches, as the fields of config.decode."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

METHODS = ("greedy", "beam", "lexicon")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Method, width and language model of a search; configs/base.py has the default values.

        fields = {**configs.base.get_decode(), "method": "lexicon", "lm": "4gram.arpa"}
        search = build_search(token_strings=tokenizer.token_strings, **fields)  # makes SearchOptions(**fields)

    Attributes:
        method: "greedy", "beam" (any text) or "lexicon" (known words, with a language model).
        beam_size: Entries kept from frame to frame.
        beam_tokens: Most likely tokens of a frame to try; 0 = all.
        beam_threshold: Distance in nats below the best entry at which others are dropped.
        num_hypotheses: Largest number of hypotheses to return.
        lm: ARPA file, plain or .gz, or a KenLM binary; "" = no language model.
        lexicon: Text file with the words of method lexicon; "" = the words of the ARPA file.
        lm_weight: Exponent of the language model's probability.
        word_score: Score added for each word, in nats.
        hot_words: Words to prefer, written as the transcripts are.
        hot_word_score: Score added for each hot word, in nats.

    Raises:
        ValueError: If a field is out of range, or of no use to the method.
    """

    method: str
    beam_size: int
    beam_tokens: int
    beam_threshold: float
    num_hypotheses: int
    lm: str
    lexicon: str
    lm_weight: float
    word_score: float
    hot_words: Sequence[str]
    hot_word_score: float

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"decode.method={self.method!r}: wanted one of {', '.join(METHODS)}")
        for name, least in (("beam_size", 1), ("num_hypotheses", 1), ("beam_tokens", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"decode.{name} must be at least {least}, got {getattr(self, name)}")
        if not self.beam_threshold > 0:
            raise ValueError(f"decode.beam_threshold must be above 0, got {self.beam_threshold:g}")
        if self.method != "lexicon" and (self.lm or self.lexicon):
            field, path = ("lm", self.lm) if self.lm else ("lexicon", self.lexicon)
            raise ValueError(
                f"decode.{field}={path} is of no use to decode.method={self.method}; set decode.method=lexicon"
            )
        self._check_greedy()

    def _check_greedy(self) -> None:
        """Refuses options that greedy decoding would ignore."""
        unused = {"hot_words": bool(self.hot_words), "num_hypotheses": self.num_hypotheses > 1}
        for name, is_set in unused.items() if self.method == "greedy" else ():
            if is_set:
                raise ValueError(f"decode.{name} is set, but method greedy does not search; set beam or lexicon")
