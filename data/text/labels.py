"""Counts labels, adjacent repeats and unknown characters of transcripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from common.text_style import text_base
from data.text.markup import drop_markup
from data.text.normalization import has_digits, is_lost_symbol, normalize_transcript, read_character, split_characters
from data.text.tokenizer import CharTokenizer

_CHUNK = 4096  # transcripts to process at a time, fast in NumPy with little memory


@dataclass(frozen=True)
class Labels:
    """Label statistics of N transcripts.

    Attributes:
        num_labels: int32 [N].
        num_repeats: int32 [N], labels equal to the previous one; CTC needs a blank between the two.
        num_unknown: int32 [N], characters without a token, which become the unknown token if there is one.
        unknown: Index -> characters of its text that the vocabulary lacks, if any.
        digits: Indices of texts with digits that the style drops.
        kept_digits: Indices of texts with digits that the style keeps.
        token_counts: int64 [V], occurrences of each token.
        first_texts: int64 [V], index of the first text with each token; -1 if there is none.
        num_words: Number of words in all transcripts.
        reread: Character that the style changes -> (its replacement, "" or " " if dropped; number of texts with it;
            index of the first).
        lost_symbols: Index -> dropped characters of its text that are spoken, such as %.
    """

    num_labels: np.ndarray
    num_repeats: np.ndarray
    num_unknown: np.ndarray
    unknown: dict[int, str]
    digits: list[int]
    token_counts: np.ndarray
    first_texts: np.ndarray
    num_words: int
    reread: dict[str, tuple[str, int, int]]
    lost_symbols: dict[int, str]
    kept_digits: list[int]

    @property
    def num_needed_frames(self) -> np.ndarray:
        """The fewest frames that CTC can align the labels with, int32 [N]."""
        return self.num_labels + self.num_repeats

    @property
    def unknown_ratio(self) -> float:
        """The ratio of unknown characters to all labels."""
        return float(self.num_unknown.sum()) / max(1, int(self.num_labels.sum()))


def measure_labels(texts: Sequence[str], *, tokenizer: CharTokenizer, text_normalization: str) -> Labels:
    """Normalizes and tokenizes N transcripts and counts their labels.

    Args:
        texts: Transcripts as stored.
        tokenizer: Tokenizer of the model.
        text_normalization: Style of `normalize_transcript`.
    """
    lengths, repeats, unknowns = (np.zeros(len(texts), dtype=np.int32) for _ in range(3))
    token_counts = np.zeros(tokenizer.num_tokens, dtype=np.int64)
    first_texts = np.full(tokenizer.num_tokens, -1, dtype=np.int64)
    unknown: dict[int, str] = {}
    num_words = 0
    for first in range(0, len(texts), _CHUNK):
        normalized = [normalize_transcript(text, text_normalization) for text in texts[first : first + _CHUNK]]
        num_words += sum(len(text.split()) for text in normalized)
        rows = [tokenizer.encode(text) for text in normalized]
        chunk = slice(first, first + len(rows))
        lengths[chunk] = [len(row) for row in rows]
        owners = np.repeat(np.arange(len(rows)), lengths[chunk])
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(owners))
        counts = np.bincount(ids, minlength=len(token_counts))
        for token in np.flatnonzero((token_counts == 0) & (counts > 0)):
            first_texts[token] = first + owners[np.argmax(ids == token)]
        token_counts += counts
        is_repeat = (ids[1:] == ids[:-1]) & (owners[1:] == owners[:-1])
        repeats[chunk] = np.bincount(owners[1:][is_repeat], minlength=len(rows))
        unknowns[chunk] = _count_unknown(tokenizer, normalized, ids, owners)
        for index in np.flatnonzero(unknowns[chunk]):
            unknown[first + int(index)] = "".join(sorted(tokenizer.unknown_characters(normalized[index])))
    digits = [index for index, text in enumerate(texts) if has_digits(text, text_normalization)]
    digits, kept_digits = (digits, []) if text_base(text_normalization) == "librispeech" else ([], digits)
    reread, lost_symbols = _find_reread(texts, text_normalization)
    return Labels(
        num_labels=lengths,
        num_repeats=repeats,
        num_unknown=unknowns,
        unknown=unknown,
        digits=digits,
        token_counts=token_counts,
        first_texts=first_texts,
        num_words=num_words,
        reread=reread,
        lost_symbols=lost_symbols,
        kept_digits=kept_digits,
    )


def _count_unknown(
    tokenizer: CharTokenizer, texts: Sequence[str], ids: np.ndarray, owners: np.ndarray
) -> Sequence[int] | np.ndarray:
    """Returns the number of characters without a token in each of N texts, from the texts or from their labels.

    Args:
        tokenizer: Tokenizer of the model.
        texts: Normalized texts.
        ids: int64 [L], labels of all texts.
        owners: int64 [L], index of the text that each label belongs to.
    """
    if tokenizer.unknown_id is None:
        return [tokenizer.num_unknown(text) for text in texts]
    return np.bincount(owners[ids == tokenizer.unknown_id], minlength=len(texts))


def _find_reread(
    texts: Sequence[str], text_normalization: str
) -> tuple[dict[str, tuple[str, int, int]], dict[int, str]]:
    unchanged = set(" \t\n")
    reread: dict[str, tuple[str, int, int]] = {}
    lost: dict[int, str] = {}
    for index, text in enumerate(texts):
        for character in sorted(split_characters(drop_markup(text, text_normalization)) - unchanged):
            read, count, first = reread.get(character, ("", 0, index))
            if not count:
                read = read_character(character, text_normalization)
                if read == character or character.isdigit():  # digits are reported separately
                    unchanged.add(character)
                    continue
            reread[character] = (read, count + 1, first)
            if not read.strip() and is_lost_symbol(character):
                lost[index] = lost.get(index, "") + character
    return reread, lost


def most_common_unknown(labels: Labels) -> str:
    """Returns the 20 unknown characters that occur in the most texts, most frequent first."""
    counts = Counter(character for characters in labels.unknown.values() for character in characters)
    return "".join(character for character, _ in counts.most_common(20))
