"""Beam search over the words of a lexicon with an n-gram language model, through flashlight-text."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from common.streams import silence_stderr
from models.search.hypotheses import IMPOSSIBLE, Hypothesis, finite_log_probs
from models.search.lexicon import Spelling
from models.search.options import SearchOptions

_NATS = math.log(10)  # KenLM's scores are decimal logarithms


class LexiconBeamSearch:
    """Beam search restricted to the words of a lexicon; paths of the same words are summed.

    spelling = Spelling(tokenizer.token_strings)
    search = LexiconBeamSearch(options=options, spelling=spelling, num_tokens=tokenizer.num_tokens, words=words)
    best, *others = search(log_probs)  # float [F, V]
    text = tokenizer.decode(best.tokens)
    """

    def __init__(
        self,
        *,
        options: SearchOptions,
        spelling: Spelling,
        num_tokens: int,
        words: Sequence[str],
        blank_id: int = 0,
    ) -> None:
        """Builds the lexicon's tree and reads the language model.

        Args:
            options: Options of the search, with method "lexicon".
            spelling: Spelling of words in tokens.
            num_tokens: Width of the logits.
            words: Words of the lexicon, which the hot words join; words that cannot be spelled are left out with a
                warning.
            blank_id: Index of the blank.

        Raises:
            ValueError: If the extra is not installed, the language model cannot be read, or no word can be spelled.
        """
        flashlight = _import_flashlight()
        self._delimiter_id = spelling.delimiter_id
        self._num_tokens = num_tokens
        self._num_hypotheses = options.num_hypotheses
        self._blank_id = blank_id
        spelled = _spell_words(spelling, words, options.hot_words)
        self._tokens = list(spelled.values())
        dictionary = flashlight.Dictionary()
        for word in spelled:
            dictionary.add_entry(word)
        # KenLM asks for an unknown word; no word of the lexicon has this name.
        dictionary.add_entry("<unk>")
        self._unknown = dictionary.get_index("<unk>")
        # Kept as attributes, because the decoder holds references only.
        self._plain_lm = self._lm = _load_language_model(flashlight, options.lm, dictionary)
        self._has_bonuses = bool(options.hot_words and options.hot_word_score)
        if self._has_bonuses:
            if not options.lm_weight > 0:
                raise ValueError(
                    f"decode.lm_weight={options.lm_weight:g}: hot words of method lexicon need one above 0; "
                    "without a language model any value works"
                )
            bonus = options.hot_word_score / (options.lm_weight * _NATS)  # the decoder multiplies it by the weight
            hot = {dictionary.get_index(word): bonus for word in options.hot_words}
            self._lm = _with_bonuses(flashlight, self._plain_lm, hot)
        self._trie = flashlight.Trie(num_tokens, self._delimiter_id)
        start = self._lm.start(False)
        for index, tokens in enumerate(self._tokens):
            _, score = self._lm.score(start, index)
            self._trie.insert([*tokens, self._delimiter_id], index, score)
        # An unfinished word scores like the best word that begins with it.
        self._trie.smear(flashlight.SmearingMode.MAX)
        self._limits = {
            "beam_size": options.beam_size,
            "beam_size_token": options.beam_tokens or num_tokens,
            "beam_threshold": options.beam_threshold,
        }
        self._decoder = self._build_decoder(options.lm_weight, options.word_score)

    def _build_decoder(self, lm_weight: float, word_score: float) -> Any:
        flashlight = _import_flashlight()
        options = flashlight.LexiconDecoderOptions(
            **self._limits,
            lm_weight=lm_weight * _NATS,
            word_score=word_score,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=flashlight.CriterionType.CTC,
        )
        return flashlight.LexiconDecoder(
            options, self._trie, self._lm, self._delimiter_id, self._blank_id, self._unknown, [], False
        )

    def with_weights(self, *, lm_weight: float, word_score: float) -> LexiconBeamSearch:
        """Returns the same search with other weights; it shares the language model and the lexicon's tree.

        Raises:
            ValueError: If it has hot words, whose bonus depends on the weight of the language model.
        """
        if self._has_bonuses:
            raise ValueError("decode.hot_words: the weights of a search with hot words are fixed; tune without them")
        other = copy.copy(self)
        other._decoder = self._build_decoder(lm_weight, word_score)
        return other

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Returns at least one text, best first; it may be empty.

        Args:
            log_probs: float [F, V], log-softmax of the logits of the valid frames.
        """
        if not len(log_probs):
            return [Hypothesis((), 0.0)]
        # A word counts once the delimiter after it is recognized, so add one after the last word.
        last = np.full([1, self._num_tokens], IMPOSSIBLE, np.float32)
        last[0, self._delimiter_id] = 0.0
        # The decoder reads raw memory in C order.
        emissions = np.ascontiguousarray(np.concatenate([finite_log_probs(log_probs), last]))
        results = self._decoder.decode(emissions.ctypes.data, *emissions.shape)
        best: dict[tuple[int, ...], Any] = {}
        for result in sorted(results, key=lambda result: -result.score):
            words = tuple(word for word in result.words if 0 <= word < len(self._tokens))
            best.setdefault(words, result)
        found = [
            Hypothesis(self._join(words), float(result.score), self._lm_score(words))
            for words, result in list(best.items())[: self._num_hypotheses]
        ]
        return found or [Hypothesis((), -math.inf)]

    def _lm_score(self, words: Sequence[int]) -> float:
        state, total = self._plain_lm.start(False), 0.0
        for word in words:
            state, score = self._plain_lm.score(state, word)
            total += score
        return _NATS * (total + self._plain_lm.finish(state)[1])

    def _join(self, words: Sequence[int]) -> tuple[int, ...]:
        tokens: list[int] = []
        for word in words:
            if tokens:
                tokens.append(self._delimiter_id)
            tokens += self._tokens[word]
        return tuple(tokens)


def _spell_words(spelling: Spelling, words: Sequence[str], hot_words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the spelling of each word and hot word, without those that cannot be spelled."""
    wanted = dict.fromkeys([*words, *hot_words])
    spelled = {word: tokens for word in wanted if (tokens := spelling.spell(word))}
    if not spelled:
        raise ValueError(
            f"none of the lexicon's {len(words)} words, such as {words[0]!r}, can be spelled in the vocabulary; "
            "write them as the transcripts are, in upper or lower case"
        )
    if len(spelled) < len(wanted):
        logging.warning(
            "%d of the lexicon's %d words have characters that the vocabulary lacks; they cannot be recognized",
            len(wanted) - len(spelled),
            len(wanted),
        )
    return spelled


def _import_flashlight() -> Any:
    """Returns what is used of flashlight-text, which is an extra, in one namespace."""
    try:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm
    except ImportError as error:
        raise ValueError(
            f"decode.method=lexicon needs flashlight-text ({error}); install it with: pip install flashlight-text, or "
            "pip install -e '.[lm]' (with Python 3.11 or 3.12: there is no wheel for 3.13 yet)"
        ) from error

    class Flashlight:
        CriterionType, SmearingMode, Trie, LM = decoder.CriterionType, decoder.SmearingMode, decoder.Trie, decoder.LM
        LexiconDecoder, LexiconDecoderOptions = decoder.LexiconDecoder, decoder.LexiconDecoderOptions
        ZeroLM, KenLM, Dictionary = decoder.ZeroLM, kenlm.KenLM, dictionary.Dictionary

    return Flashlight


def _load_language_model(flashlight: Any, path: str, dictionary: Any) -> Any:
    if not path:
        return flashlight.ZeroLM()
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such language model (decode.lm); check the path")
    try:
        with silence_stderr():  # from KenLM's progress bar
            return flashlight.KenLM(path, dictionary)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[-1]
        raise ValueError(f"{path}: KenLM cannot read this language model ({reason}); give an ARPA file") from error


def _with_bonuses(flashlight: Any, model: Any, bonuses: dict[int, float]) -> Any:
    """Returns the language model with bonuses added to the scores of some words."""

    class WithBonuses(flashlight.LM):
        def start(self, start_with_nothing: bool) -> Any:
            return model.start(start_with_nothing)

        def score(self, state: Any, word: int) -> tuple[Any, float]:
            next_state, score = model.score(state, word)
            return next_state, score + bonuses.get(word, 0.0)

        def finish(self, state: Any) -> tuple[Any, float]:
            return model.finish(state)

    return WithBonuses()
