"""Beam search over the words of a lexicon with an n-gram language model, through flashlight-text."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from models.search.hypotheses import IMPOSSIBLE, Hypothesis, finite_log_probs
from models.search.lexicon import Spelling

_NATS = math.log(10)  # KenLM speaks in decimal logarithms


class LexiconBeamSearch:
    """Words of a lexicon alone; paths of the same words are summed."""

    def __init__(
        self,
        *,
        spelling: Spelling,
        num_tokens: int,
        words: Sequence[str],
        language_model: str,
        lm_weight: float,
        word_score: float,
        beam_size: int,
        beam_tokens: int = 0,
        beam_threshold: float = 25.0,
        num_hypotheses: int = 1,
        hot_words: Sequence[str] = (),
        hot_word_score: float = 0.0,
        blank_id: int = 0,
    ) -> None:
        """Builds the lexicon's tree and reads the language model.

        Args:
            spelling: Of the vocabulary.
            num_tokens: Width of the logits.
            words: The lexicon; words that cannot be spelled are left out, and counted in the log.
            language_model: ARPA file, plain or .gz, or a KenLM binary; "" = none, all words alike.
            lm_weight: Exponent of the language model's probability.
            word_score: Added for each word, in nats.
            beam_size: Entries kept from frame to frame.
            beam_tokens: Likeliest tokens of a frame that are tried; 0 = all.
            beam_threshold: Entries further below the best one are dropped, in nats.
            num_hypotheses: Texts returned at most.
            hot_words: Words to prefer; those that the lexicon lacks join it.
            hot_word_score: Added for each hot word, in nats.
            blank_id: Index of the blank.

        Raises:
            ValueError: The extra is not installed, the language model cannot be read, or no word can be spelled.
        """
        flashlight = _import_flashlight()
        self._spelling = spelling
        self._delimiter_id = spelling.delimiter_id
        self._num_tokens = num_tokens
        self._num_hypotheses = num_hypotheses
        all_words = list(dict.fromkeys([*words, *hot_words]))
        spelled = [(word, tokens) for word in all_words if (tokens := spelling.spell(word))]
        if not spelled:
            raise ValueError(
                f"none of the lexicon's {len(words)} words, such as {words[0]!r}, can be spelled in the vocabulary; "
                "they must be written as the transcripts are, in upper or in lower case"
            )
        if len(spelled) < len(all_words):
            logging.warning(
                "%d of the lexicon's %d words have characters that the vocabulary lacks; they cannot be heard",
                len(all_words) - len(spelled),
                len(all_words),
            )
        dictionary = flashlight.Dictionary()
        for word, _ in spelled:
            dictionary.add_entry(word)
        # Sooner or later every word is unknown to some model; none of the lexicon has this name.
        dictionary.add_entry("<unk>")
        self._tokens = [tokens for _, tokens in spelled]
        hot = {dictionary.get_index(word): hot_word_score for word in hot_words} if hot_word_score else {}
        if hot and not lm_weight > 0:
            raise ValueError(
                f"decode.lm_weight={lm_weight:g}: hot words of method lexicon need one above 0; "
                "without a language model any will do"
            )
        # Kept: the decoder holds them by reference.
        self._plain_lm = self._lm = _load_language_model(flashlight, language_model, dictionary)
        if hot:  # the decoder multiplies the bonus by the weight
            bonuses = {index: score / (lm_weight * _NATS) for index, score in hot.items()}
            self._lm = _with_bonuses(flashlight, self._plain_lm, bonuses)
        self._trie = flashlight.Trie(num_tokens, self._delimiter_id)
        start = self._lm.start(False)
        for index, tokens in enumerate(self._tokens):
            _, score = self._lm.score(start, index)
            self._trie.insert([*tokens, self._delimiter_id], index, score)
        # A beginning counts like its best word until the word is known.
        self._trie.smear(flashlight.SmearingMode.MAX)
        self._unknown = dictionary.get_index("<unk>")
        self._blank_id = blank_id
        self._limits = {
            "beam_size": beam_size,
            "beam_size_token": beam_tokens or num_tokens,
            "beam_threshold": beam_threshold,
        }
        self._has_bonuses = bool(hot)
        self._decoder = self._build_decoder(lm_weight, word_score)

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
        delimiter_id = self._delimiter_id
        return flashlight.LexiconDecoder(
            options, self._trie, self._lm, delimiter_id, self._blank_id, self._unknown, [], False
        )

    def with_weights(self, *, lm_weight: float, word_score: float) -> LexiconBeamSearch:
        """Returns the same search with other weights; it shares the language model and the lexicon's tree.

        Raises:
            ValueError: It has hot words, whose bonus is mixed into the language model for one weight.
        """
        if self._has_bonuses:
            raise ValueError("decode.hot_words: the weights of a search with hot words are fixed; tune without them")
        other = copy.copy(self)
        other._decoder = self._build_decoder(lm_weight, word_score)
        return other

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Returns the best texts, best first; at least one, which may be empty.

        Args:
            log_probs: float [F, V], log-softmax of the logits of the valid frames.
        """
        if not len(log_probs):
            return [Hypothesis((), 0.0)]
        # A word counts when the space after it is heard; behind the last word nobody says one, so one is added.
        last = np.full([1, self._num_tokens], IMPOSSIBLE, np.float32)
        last[0, self._delimiter_id] = 0.0
        # The decoder reads memory row by row, in whatever order the caller's array lies.
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


def _import_flashlight() -> Any:
    """What is used of the package, in one namespace; it is an extra, and imported by who asks for it alone."""
    try:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm
    except ImportError as error:
        raise ValueError(
            f"decode.method=lexicon needs flashlight-text ({error}); install it with: pip install flashlight-text, or "
            "pip install -e '.[lm]' (with Python 3.11 or 3.12: for 3.13 there is no wheel yet)"
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
        with _quiet_stderr():
            return flashlight.KenLM(path, dictionary)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[-1]
        raise ValueError(f"{path}: KenLM cannot read this language model ({reason}); give an ARPA file") from error


def _with_bonuses(flashlight: Any, model: Any, bonuses: dict[int, float]) -> Any:
    """The same language model, with something added to the scores of some words."""

    class WithBonuses(flashlight.LM):
        def start(self, start_with_nothing: bool) -> Any:
            return model.start(start_with_nothing)

        def score(self, state: Any, word: int) -> tuple[Any, float]:
            next_state, score = model.score(state, word)
            return next_state, score + bonuses.get(word, 0.0)

        def finish(self, state: Any) -> tuple[Any, float]:
            return model.finish(state)

    return WithBonuses()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """KenLM draws a bar on the process's standard error, past Python."""
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
