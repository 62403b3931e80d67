"""Words that a lexicon search may output, and their spelling in tokens."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence

_NO_WORDS = ("<s>", "</s>", "<unk>", "<UNK>")


class Spelling:
    """Spells words as token ids, taking the longest matching token first, as the labels of training do."""

    def __init__(self, token_strings: Sequence[str]) -> None:
        """Indexes the vocabulary.

        Args:
            token_strings: Text of each token; a space for the word delimiter, "" for special tokens.

        Raises:
            ValueError: If no token is a word delimiter, or tokens are words, pieces or phones.
        """
        if any(text[:1].isspace() and text.strip() for text in token_strings):
            raise ValueError(
                "the vocabulary is made of words, pieces or phones, in which words and hot words are not spelled: set "
                "decode.method=greedy or beam, without hot words"
            )
        self._ids = {text: index for index, text in enumerate(token_strings) if text and not text.isspace()}
        self._longest = max(map(len, self._ids), default=1)
        spaces = [index for index, text in enumerate(token_strings) if text.isspace()]
        if not spaces:
            raise ValueError("the vocabulary has no space between words, set decode.method=greedy")
        self.delimiter_id = spaces[0]

    def spell(self, word: str) -> tuple[int, ...] | None:
        """Returns the token ids of a word, or None if the vocabulary lacks one of its characters."""
        found, place = [], 0
        while place < len(word):
            lengths = range(self._longest, 0, -1)
            token = next((word[place : place + n] for n in lengths if word[place : place + n] in self._ids), None)
            if token is None:
                return None
            found.append(self._ids[token])
            place += len(token)
        return tuple(found)

    def spell_hot_words(self, words: Iterable[str]) -> list[tuple[int, ...]]:
        """Returns the token ids of each hot word.

        Raises:
            ValueError: If a word cannot be spelled; names it.
        """
        found = []
        for word in words:
            spelled = self.spell(word)
            if not spelled:
                raise ValueError(
                    f"decode.hot_words: {word!r} cannot be spelled in the vocabulary; give single words, written as "
                    "the transcripts are"
                )
            found.append(spelled)
        return found


def read_words(lexicon: str, language_model: str) -> list[str]:
    """Returns the words of a lexicon, or of the language model if there is none.

    Args:
        lexicon: Text file, plain or .gz, with a word in the first column of each line; "" = none.
        language_model: ARPA file, plain or .gz. The words of a KenLM binary cannot be read.

    Raises:
        ValueError: If the file is missing, holds no words, or is of another kind.
    """
    if lexicon:
        path, field, kind = lexicon, "lexicon", "a text file of words"
    else:
        path, field, kind = language_model, "lm", "an ARPA file; for a binary model set decode.lexicon to its words"
    if not os.path.isfile(path):
        raise ValueError(f"{path or '(empty)'}: no such file (decode.{field}); check the path")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
            found = dict.fromkeys(_lexicon_words(file) if lexicon else _arpa_words(file, path))
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: not {kind} ({error})") from error
    words = [word for word in found if word not in _NO_WORDS]
    if not words:
        raise ValueError(f"{path}: holds no words; check the file")
    return words


def _lexicon_words(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        columns = line.split()
        if columns:
            yield columns[0]


def _arpa_words(lines: Iterable[str], path: str) -> Iterator[str]:
    """Yields the second column of the unigram section."""
    is_inside = False
    for line in lines:
        if line.startswith("\\"):
            if is_inside:
                return
            is_inside = line.strip() == "\\1-grams:"
        elif is_inside and line.strip():
            columns = line.rstrip("\n").split("\t")
            if len(columns) < 2:
                raise ValueError(f"{path}: {line.strip()[:40]!r} is not a unigram; is this an ARPA file?")
            yield columns[1]
    if not is_inside:
        raise ValueError(
            f"{path}: not an ARPA file, it has no \\1-grams: section; for a binary model set decode.lexicon"
        )
