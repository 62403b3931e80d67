"""Normalizes transcripts and converts them to token ids and back, with the vocabulary of a vocab.json."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from common import special_tokens as roles
from common.sentence_pieces import SPACE, Pieces
from common.special_tokens import find_special_tokens
from common.text_style import AUTO, STYLES, TextStyle, parse_text_style, text_base, with_base
from data.common.errors import InputError
from data.text import casing
from data.text.markup import drop_markup
from data.text.numbers import number_language, spell_numbers
from data.text.vocab_file import VocabFile, read_vocab_file, write_vocab_file

PAD, BOS, EOS, UNKNOWN, WORD_DELIMITER = "<pad>", "<s>", "</s>", "<unk>", "|"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN)
# Facebook's English vocabulary, in the order of the output layer of the published checkpoints.
FACEBOOK_TOKENS = (*SPECIAL_TOKENS, WORD_DELIMITER, *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
_TATWEEL, _VARIATION = "\u0640", "VARIATION SELECTOR"
_ASCII_DIGIT = re.compile("[0-9]")
# A letter or digit other than the capitals A to Z.
_BEYOND_CAPITALS = re.compile(r"[^\W_A-Z]")

# Right and left quotation mark, modifier letters, prime, grave and acute accent, all typed for '. They are replaced
# before NFKC, which splits the spacing acute accent into a space and a combining mark.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u02bb\u02b9\u2032\u0060\u00b4", "'"))


def normalize_transcript(text: str, style: str = "librispeech") -> str:
    """Normalizes a transcript for training and scoring; idempotent.

    Args:
        text: Transcript.
        style: "librispeech" for upper-case English: letters with their marks and apostrophes stay, everything else
            becomes a space. Digits are lost, so spell them out before (`has_digits` finds them).
            "unicode" for lower case in any language: letters, marks, digits and apostrophes inside words stay,
            punctuation and symbols become a space. Lower case is Unicode's, not a language's: the Turkish I becomes i.
            "none" changes nothing.
            Each may have options (`common.text_style.parse_text_style`): "unicode+language=tr+numbers".

    Returns:
        The words separated by single spaces ("none" returns `text`).

    Raises:
        ValueError: If the style is unknown.
        InputError: If the style has number words, and num2words is absent.
    """
    if style == "none":
        return text
    found = _parse_style(style)
    if "+" in style:
        text = _apply_options(text, style)
        if found.base == "none":
            return text
    if text.isascii() and not (found.keep_case or found.keep_punctuation or casing.is_turkic(found.language)):
        return _normalize_ascii(text, found.base == "librispeech")
    return _normalize_unicode(text, found)


def _normalize_unicode(text: str, style: TextStyle) -> str:
    """Normalizes any text by the base, the language and what is kept of a style."""
    upper = style.base == "librispeech"
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    # Changing the case can break the normal form and create an apostrophe (U+0149).
    if not style.keep_case:
        text = casing.upper(text, style.language) if upper else casing.lower(text, style.language)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_kept(one, upper, style.keep_punctuation) for one in text.translate(_APOSTROPHES))
    # Removing an invisible character can bring together two that compose.
    words = unicodedata.normalize("NFKC", text).split()
    if style.keep_punctuation:
        return " ".join(words) if any(map(_is_spoken, "".join(words))) else ""
    if not upper:
        words = [word.strip("'") for word in words]
    return " ".join(word for word in words if any(map(_is_spoken, word)))


def _parse_style(style: str) -> TextStyle:
    try:
        found = parse_text_style(style)
    except ValueError as error:
        raise ValueError(f"text normalization is {style!r}: {error}") from error
    if found.base == AUTO:
        raise ValueError(f"text normalization is {style!r}, wanted one of {', '.join(STYLES)}")
    return found


def _apply_options(text: str, style: str) -> str:
    """Returns a transcript without the markup that its style drops, and with its numbers as words."""
    text = drop_markup(text, style)
    found = parse_text_style(style)
    return spell_numbers(text, number_language(found)) if found.numbers else text


def _normalize_ascii(text: str, upper: bool) -> str:
    """Normalizes ASCII, which is in normal form, in 3 microseconds a transcript instead of 60."""
    kept = (text.upper() if upper else text.lower()).translate(_ASCII_UPPER if upper else _ASCII_LOWER)
    if "'" not in kept:
        return " ".join(kept.split())
    words = kept.split() if upper else [word.strip("'") for word in kept.split()]
    return " ".join(word for word in words if word.strip("'"))


def choose_text_normalization(texts: Iterable[str], style: str = AUTO) -> str:
    """Returns the style that keeps all letters of a corpus: "librispeech" if all are A to Z, else "unicode".

    Args:
        texts: Transcripts as stored.
        style: "auto" with the options that the chosen style shall have.
    """
    options = parse_text_style(style)
    if options.keep_case or options.keep_punctuation:
        return with_base(style, "unicode")
    return with_base(style, _choose_base(_without_digits(drop_markup(text, style), options) for text in texts))


def _without_digits(text: str, options: TextStyle) -> str:
    return re.sub(r"\d", " ", text) if options.numbers else text


def _choose_base(texts: Iterable[str]) -> str:
    has_letters = False
    for text in texts:
        if _BEYOND_CAPITALS.search(text):
            return "unicode"
        has_letters = has_letters or any(map(str.isalpha, text))
    return "librispeech" if has_letters else "unicode"


def has_digits(text: str, style: str = "none") -> bool:
    """Returns whether a transcript has digits, but for those that the options of a style spell out or drop."""
    if text.isascii() and not _ASCII_DIGIT.search(text):
        return False
    return any(map(str.isdigit, text)) and any(map(str.isdigit, _apply_options(text, style)))


def split_characters(text: str) -> set[str]:
    """Returns the distinct characters of a text, each letter together with its combining marks."""
    if unicodedata.is_normalized("NFC", text):
        return set(text)
    clusters: list[str] = []
    for character in text:
        if clusters and unicodedata.category(character)[0] == "M":
            clusters[-1] += character
        else:
            clusters.append(character)
    return set(clusters)


def read_character(character: str, style: str) -> str:
    """Returns what `normalize_transcript` makes of a character between two letters, ignoring case.

    Args:
        character: Character of `split_characters`.
        style: Style of `normalize_transcript`.

    Returns:
        `character` itself if at most its case changes; "" or " " if it is dropped.
    """
    if text_base(style) == "none":
        return " " if character == WORD_DELIMITER else character
    read = normalize_transcript(f"x{character}x", style)[1:-1]
    # A ligature or a sharp s becomes two letters, which is more than a change of case.
    alike = [character, character.upper(), character.lower()]
    if language := parse_text_style(style).language:
        alike += [casing.upper(character, language), casing.lower(character, language)]
    is_same = len(read) == len(character) and read in alike
    return character if is_same else read


def is_lost_symbol(character: str) -> bool:
    """Returns whether a dropped character is spoken, such as a currency sign, a percent sign or a fraction."""
    kind = unicodedata.category(character[0])
    return character in "%&@#\u00a7" or kind in ("Sc", "No", "Nl") or character in "+=\u00b0\u00d7\u00f7\u00b1"


def describe_character(character: str) -> str:
    """Returns a character for a message, by code point and name if it is not visible alone."""
    if character.isprintable() and not character.isspace() and unicodedata.category(character[0])[0] != "M":
        return character if unicodedata.is_normalized("NFC", character) else " + ".join(map(_name_character, character))
    return " + ".join(map(_name_character, character))


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


def _kept(character: str, letters_only: bool, with_punctuation: bool = False) -> str:
    """Returns the character, a space if it is dropped, or "" if it is invisible."""
    category = unicodedata.category(character)
    # Soft hyphens, joiners, byte-order and direction marks and the Arabic tatweel, which stretches words, occur inside
    # words. Variation selectors and enclosing marks turn a character into an emoji.
    if category in ("Cf", "Me") or character == _TATWEEL:
        return ""
    if category == "Mn" and _VARIATION in unicodedata.name(character, ""):
        return ""
    if character == "'" or category[0] in ("L", "M") or (category[0] == "N" and not letters_only):
        return character
    return character if with_punctuation and category[0] == "P" else " "


def _name_character(character: str) -> str:
    name = unicodedata.name(character, "")
    shown = f"{character} " if character.isprintable() and unicodedata.category(character)[0] not in ("M", "Z") else ""
    return f"{shown}U+{ord(character):04X}{f' {name}' if name and not shown else ''}"


def _is_spoken(character: str) -> bool:
    """Returns whether a character makes a word; marks and apostrophes alone do not."""
    return unicodedata.category(character)[0] in ("L", "N")


def _ascii_table(letters_only: bool) -> dict[int, str]:
    characters = map(chr, range(128))
    return {ord(character): _kept(character.translate(_APOSTROPHES), letters_only) for character in characters}


_ASCII_UPPER, _ASCII_LOWER = _ascii_table(True), _ascii_table(False)


def load_tokenizer(vocab: str | os.PathLike[str] = "") -> CharTokenizer:
    """Returns the tokenizer of a vocab.json, or of the published English models if `vocab` is empty."""
    return CharTokenizer.from_file(vocab) if vocab else CharTokenizer(tokens=FACEBOOK_TOKENS)
