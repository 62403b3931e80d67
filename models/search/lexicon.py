"""The words that a search may say, and how they are spelled in tokens."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence

_NO_WORDS = ("<s>", "</s>", "<unk>", "<UNK>")


class Spelling:
    """Words as token ids; of several tokens that begin alike the longest is taken, as in training's labels."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Keeps the vocabulary.

        Args:
            pieces: What each token says; a space between words, "" for a special token.

        Raises:
            ValueError: No token says a space: there are no words then.
        """
        self._ids = {piece: index for index, piece in enumerate(pieces) if piece and not piece.isspace()}
        self._longest = max(map(len, self._ids), default=1)
        spaces = [index for index, piece in enumerate(pieces) if piece.isspace()]
        if not spaces:
            raise ValueError("the vocabulary has no space between words, set decode.method=greedy")
        self.delimiter_id = spaces[0]

    def spell(self, word: str) -> tuple[int, ...] | None:
        """Returns the tokens of a word, None if the vocabulary lacks one of its characters."""
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
        """Returns the tokens of each hot word.

        Raises:
            ValueError: Names the word that cannot be spelled.
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
    """Returns the words of a lexicon, or without one those that the language model knows.

    Args:
        lexicon: Text file, plain or .gz, the first column of each line a word; "" = none.
        language_model: ARPA file, plain or .gz; what KenLM's build_binary makes holds no words that could be read.

    Raises:
        ValueError: A file is missing, holds no word, or is of another kind.
    """
    path = lexicon or language_model
    if not os.path.isfile(path):
        field = "lexicon" if lexicon else "lm"
        raise ValueError(f"{path or '(empty)'}: no such file (decode.{field}); check the path")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
            found = dict.fromkeys(_lexicon_words(file) if lexicon else _arpa_words(file, path))
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        what = "a text file of words" if lexicon else "an ARPA file; of a binary model set decode.lexicon to its words"
        raise ValueError(f"{path}: not {what} ({error})") from error
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
    """Second column of the section of unigrams."""
    is_inside = False
    for line in lines:
        if line.startswith("\\"):
            if is_inside:
                return
            is_inside = line.strip() == "\\1-grams:"
        elif is_inside and line.strip():
            columns = line.rstrip("\n").split("\t")
            if len(columns) < 2:
                raise ValueError(f"{path}: {line.strip()[:40]!r} is no unigram; is this an ARPA file?")
            yield columns[1]
    if not is_inside:
        raise ValueError(f"{path}: no ARPA file, it has no \\1-grams: section; of a binary model set decode.lexicon")
