"""Converts normalized transcripts to token ids and back, with the vocabulary of a vocab.json."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from common import special_tokens as roles
from common.sentence_pieces import SPACE, Pieces
from common.special_tokens import find_special_tokens
from data.common.errors import InputError
from data.text.vocab_file import VocabFile, read_vocab_file, write_vocab_file

PAD, BOS, EOS, UNKNOWN, WORD_DELIMITER = "<pad>", "<s>", "</s>", "<unk>", "|"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN)
# Facebook's English vocabulary, in the order of the output layer of the published checkpoints.
FACEBOOK_TOKENS = (*SPECIAL_TOKENS, WORD_DELIMITER, *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")


class CharTokenizer:
    """Converts normalized transcripts to the token ids of a CTC head and back.

        tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
        ids = tokenizer.encode("HELLO WORLD")
        text = tokenizer.decode(ids)

    Attributes:
        tokens: Token of each id.
        special_tokens: Role -> token.
        blank_id: Id of the CTC blank.
        unknown_id: Id of the token for unknown characters; None if there is none.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str],
        special_tokens: Mapping[str, str] | None = None,
        separator: str = "",
        pieces: Pieces | None = None,
    ):
        """Checks the vocabulary.

        Args:
            tokens: Token of each id.
            special_tokens: Role -> token, from `common.special_tokens.find_special_tokens`; None uses the usual names.
                Without a token for unknown characters, or for the space between words, they have no label.
            separator: Text between two tokens, for phones, which `decode` separates by spaces; "" for characters.
            pieces: Splits text into the tokens; None takes the longest token that matches.

        Raises:
            InputError: If a token is repeated or empty, or none is the CTC blank.
        """
        self.tokens = tuple(tokens)
        _check_tokens(self.tokens)
        self.special_tokens = dict(find_special_tokens(self.tokens) if special_tokens is None else special_tokens)
        ids = {token: index for index, token in enumerate(self.tokens)}
        if roles.BLANK not in self.special_tokens:
            raise InputError(
                f"none of the vocabulary's tokens is the CTC blank (looked for {PAD} and [PAD]): name it as pad_token "
                f"in {roles.TOKENIZER_FILE} beside it; every token keeps its id"
            )
        self.blank_id = ids[self.special_tokens[roles.BLANK]]
        self.unknown_id = ids.get(self.special_tokens.get(roles.UNKNOWN, ""))
        delimiter = self.special_tokens.get(roles.WORD_DELIMITER)
        silent = {*SPECIAL_TOKENS, *self.special_tokens.values()} - {delimiter}
        self._separator, self._pieces = separator, pieces
        self._token_strings = ["" if token in silent else self._text_of(token) for token in self.tokens]
        # Without special tokens: the blank may look like a character and is not a label.
        self._labels = {token: index for token, index in ids.items() if token not in silent}
        if delimiter is not None and self._splits_characters:
            self._token_strings[ids[delimiter]] = " "
            self._labels[" "] = ids[delimiter]
        self._long = _long_pattern(self._labels) if self._splits_characters else None

    @property
    def _splits_characters(self) -> bool:
        return not self._separator and self._pieces is None

    def _text_of(self, token: str) -> str:
        """Returns what a token adds to a text, with a space where it begins a word or is a phone."""
        if self._separator:
            return f" {token}"
        return token if self._pieces is None else token.replace(SPACE, " ")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Reads a vocab.json, an object of token -> id, and the roles from tokenizer_config.json beside it.

        A SentencePiece model, by itself or beside the vocab.json, splits text into its pieces.

        Raises:
            InputError: If there is no such file, it is not an object of token -> id with the ids 0 to N - 1, or the
                vocabulary is not valid.
        """
        vocab = read_vocab_file(path)
        try:
            return cls(**vars(vocab))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a vocab.json for `from_file`, and beside it what the names of the tokens do not tell."""
        write_vocab_file(path, VocabFile(self.tokens, self.special_tokens, self._separator, self._pieces))

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary."""
        return len(self.tokens)

    @property
    def token_strings(self) -> tuple[str, ...]:
        """The text of each token: its characters, a space for the word delimiter, "" for special tokens.

        A space before other characters begins a word.
        """
        return tuple(self._token_strings)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a normalized text, taking the longest matching token first."""
        ids, unknown = self._labels, self.unknown_id
        if unknown is not None:
            return [ids.get(token, unknown) for token in self._split(text)]
        return [ids[token] for token in self._split(text) if token in ids]

    def num_labels(self, text: str) -> int:
        """Returns the length of `encode(text)`, without encoding it if every character is a label."""
        if self._splits_characters and self.unknown_id is not None and self._long is None:
            return len(text)
        return len(self.encode(text))

    def num_unknown(self, text: str) -> int:
        """Returns how often the characters of `unknown_characters` occur in a normalized text."""
        return sum(token not in self._labels for token in self._split(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of collapsed ids, without special tokens and with single spaces.

        Raises:
            ValueError: If an id is outside the vocabulary.
        """
        texts = []
        for index in ids:
            # Checked here, because a negative id would silently count from the end.
            if not 0 <= index < len(self._token_strings):
                raise ValueError(f"token id {index}, wanted 0 to {len(self._token_strings) - 1}")
            texts.append(self._token_strings[index])
        return " ".join("".join(texts).split())

    def unknown_characters(self, text: str) -> set[str]:
        """Returns the characters of a normalized text that the vocabulary lacks."""
        return set(self._split(text)) - self._labels.keys()

    def _split(self, text: str) -> Iterable[str]:
        """Splits a text into characters, or into tokens if the vocabulary has longer ones."""
        if self._separator:
            return text.replace(self._separator, " ").split()
        if self._pieces is not None:
            return self._pieces.processor.EncodeAsPieces(text)
        return text if self._long is None else self._long.findall(text)


def _check_tokens(tokens: Sequence[str]) -> None:
    repeated = [token for token, count in Counter(tokens).items() if count > 1]
    if repeated or "" in tokens:
        raise InputError(f"the vocabulary's token {(repeated or [''])[0]!r} is empty or repeated: remove it")


def _long_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Returns a pattern that splits a text into the longest tokens, or None if all are single characters."""
    long = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, [*long, ""])) + ".", re.DOTALL) if long else None


def build_vocab(texts: Iterable[str]) -> tuple[str, ...]:
    """Makes the vocabulary of a corpus.

    Args:
        texts: Normalized transcripts.

    Returns:
        The special tokens, the word delimiter, then all characters by falling frequency, ties by code point.

    Raises:
        InputError: If the texts hold no characters.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    for character in (*filter(str.isspace, list(counts)), WORD_DELIMITER):
        counts.pop(character, None)
    if not counts:
        raise InputError("the transcripts hold no characters: check the corpus")
    characters = sorted(counts, key=lambda character: (-counts[character], character))
    return (*SPECIAL_TOKENS, WORD_DELIMITER, *characters)


def build_word_vocab(texts: Iterable[str]) -> tuple[str, ...]:
    """Makes the vocabulary of a corpus of few words, such as digits or commands, each of which is a token.

    Args:
        texts: Normalized transcripts.

    Returns:
        The special tokens, then all words by falling frequency, ties in the order of their characters.

    Raises:
        InputError: If the texts hold no words.
    """
    counts = Counter(word for text in texts for word in text.split() if word not in SPECIAL_TOKENS)
    if not counts:
        raise InputError("the transcripts hold no words: check the corpus")
    return (*SPECIAL_TOKENS, *sorted(counts, key=lambda word: (-counts[word], word)))


def load_tokenizer(vocab: str | os.PathLike[str] = "") -> CharTokenizer:
    """Returns the tokenizer of a vocab.json, or of the published English models if `vocab` is empty."""
    return CharTokenizer.from_file(vocab) if vocab else CharTokenizer(tokens=FACEBOOK_TOKENS)
