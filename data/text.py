"""Transcripts: normalization, and the character tokenizer over a vocab.json."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from common import storage
from common.json_files import MalformedFileError, parse_json
from data.errors import InputError
from data.files import write_text_atomic

PAD, BOS, EOS, UNKNOWN, WORD_DELIMITER = "<pad>", "<s>", "</s>", "<unk>", "|"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN)
# Facebook's English vocabulary, in the order of the published checkpoints' output layer.
FACEBOOK_TOKENS = (*SPECIAL_TOKENS, WORD_DELIMITER, *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
# In brackets, and without a bracket inside: <unk>, [laughter], (noise), {um}.
_MARKUP = re.compile(r"<[^<>\s][^<>]{0,40}>|\[[^\[\]]{1,40}\]|\([^()]{1,40}\)|\{[^{}]{1,40}\}")
_TATWEEL, _VARIATION = "\u0640", "VARIATION SELECTOR"
TEXT_STYLES = ("librispeech", "unicode", "none")

# Right and left quotation mark, modifier letters, prime, grave and acute accent, as typed for '.
# Before NFKC, which takes the spacing acute accent apart into a space and a combining mark.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u02bb\u02b9\u2032\u0060\u00b4", "'"))


def normalize_transcript(text: str, style: str = "librispeech") -> str:
    """Brings a transcript to the form that is trained and scored; idempotent.

    Args:
        text: any transcript.
        style: "librispeech": upper case; letters with their marks and apostrophes stay, all else
            becomes a space. Digits are lost, so spell them out before (`has_digits` finds them).
            "unicode": lower case, for any language; letters, marks, digits and apostrophes inside
            words stay, punctuation and symbols become a space. Lower case is Unicode's, not a
            language's: the Turkish I becomes i. "none": unchanged.

    Returns:
        The words, one space apart ("none" apart from that).

    Raises:
        ValueError: an unknown style.
    """
    if style == "none":
        return text
    if style not in TEXT_STYLES:
        raise ValueError(f"text style is {style!r}, wanted one of {', '.join(TEXT_STYLES)}")
    upper = style == "librispeech"
    if text.isascii():
        return _normalize_ascii(text, upper)
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    # Changing the case can break the normal form (and bring forth an apostrophe: U+0149).
    # A capital I with a dot (Turkish) leaves its dot over as a mark of its own.
    text = text.upper() if upper else text.lower().replace("i\u0307", "i")
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_kept(character, upper) for character in text.translate(_APOSTROPHES))
    # Removing an invisible character can bring two together that compose.
    words = unicodedata.normalize("NFKC", text).split()
    if not upper:
        words = [word.strip("'") for word in words]
    return " ".join(word for word in words if any(map(_is_spoken, word)))


def _normalize_ascii(text: str, upper: bool) -> str:
    """What `normalize_transcript` does to ASCII, which is in normal form: 3 us a transcript, not 60."""
    kept = (text.upper() if upper else text.lower()).translate(_ASCII_UPPER if upper else _ASCII_LOWER)
    if "'" not in kept:
        return " ".join(kept.split())
    words = kept.split() if upper else [word.strip("'") for word in kept.split()]
    return " ".join(word for word in words if word.strip("'"))


def has_digits(text: str) -> bool:
    """Whether a transcript holds digits, which the librispeech style would lose."""
    return any(character.isdigit() for character in text)


def find_markup(text: str) -> list[str]:
    """Returns what stands in brackets, such as <COMMA>, [noise] or (laughter): said by nobody, as a rule."""
    return _MARKUP.findall(unicodedata.normalize("NFKC", text)) if not text.isascii() else _MARKUP.findall(text)


def split_characters(text: str) -> set[str]:
    """Returns the different characters of a text, a letter together with marks that could be one character with it."""
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
    """Returns what `normalize_transcript` makes of a character between two letters; the letter case is no difference.

    Args:
        character: one of `split_characters`.
        style: as `normalize_transcript`.

    Returns:
        `character` itself if only its case changes; "" or " " where it is dropped.
    """
    if style == "none":
        return " " if character == WORD_DELIMITER else character
    read = normalize_transcript(f"x{character}x", style)[1:-1]
    # A ligature or a sharp s becomes two letters: that is more than another case.
    is_same = len(read) == len(character) and read in (character, character.upper(), character.lower())
    return character if is_same else read


def is_lost_symbol(character: str) -> bool:
    """Returns whether a character that a style drops is one that is spoken: a currency sign, a percent sign, a half."""
    kind = unicodedata.category(character[0])
    return character in "%&@#\u00a7" or kind in ("Sc", "No", "Nl") or character in "+=\u00b0\u00d7\u00f7\u00b1"


def describe_character(character: str) -> str:
    """Returns a character as a message can show it: by code point and name where it cannot be seen alone."""
    if character.isprintable() and not character.isspace() and unicodedata.category(character[0])[0] != "M":
        return character if unicodedata.is_normalized("NFC", character) else " + ".join(map(_name_character, character))
    return " + ".join(map(_name_character, character))


class CharTokenizer:
    """Characters to token ids and back. The blank is `<pad>`, id 0."""

    def __init__(self, *, tokens: Sequence[str]):
        """Checks and keeps the vocabulary.

        Args:
            tokens: token of each id, `<pad>` first; must hold `<unk>` and the word delimiter.

        Raises:
            InputError: a token is missing, repeated or empty, or `<pad>` is not first.
        """
        self.tokens = tuple(tokens)
        if not self.tokens or self.tokens[0] != PAD:
            raise InputError(f"the vocabulary's token 0 must be {PAD}, the CTC blank: reorder it")
        for token in (UNKNOWN, WORD_DELIMITER):
            if token not in self.tokens:
                raise InputError(f"the vocabulary lacks the token {token}: add it")
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated or "" in self.tokens:
            raise InputError(
                f"the vocabulary's token {(repeated or [''])[0]!r} is empty or repeated: remove it"
            )
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self._unknown_id = self._ids[UNKNOWN]
        self._pieces = [
            " " if token == WORD_DELIMITER else "" if token in SPECIAL_TOKENS else token
            for token in self.tokens
        ]

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Reads a vocab.json, one object of token -> id with the ids 0 to N - 1.

        Raises:
            InputError: no such file, not such an object, or a vocabulary that `__init__` refuses.
        """
        if not storage.is_file(path):
            raise InputError(f"no vocabulary {path}: make one with python -m data.vocab")
        try:
            ids = parse_json(storage.read_bytes(path), os.fspath(path))
        except MalformedFileError as error:
            raise InputError(f"{str(error).replace('not valid JSON', 'not JSON')}: make it again") from error
        if not isinstance(ids, dict) or not all(type(index) is int for index in ids.values()):
            raise InputError(f"{path} is not an object of token -> id: make it again")
        if sorted(ids.values()) != list(range(len(ids))):
            raise InputError(f"the ids in {path} are not 0 to {len(ids) - 1}, each once: mend it")
        try:
            return cls(tokens=sorted(ids, key=ids.__getitem__))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocab.json that `from_file` reads, atomically."""
        write_text_atomic(path, json.dumps(self._ids, ensure_ascii=False, indent=1) + "\n")

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def pieces(self) -> tuple[str, ...]:
        """What each token says: a character, a space between words, "" for a special token."""
        return tuple(self._pieces)

    @property
    def blank_id(self) -> int:
        return 0

    def encode(self, text: str) -> list[int]:
        """Ids of a normalized text: a space becomes the word delimiter, the unknown `<unk>`."""
        ids, unknown = self._ids, self._unknown_id
        return [ids.get(character, unknown) for character in text.replace(" ", WORD_DELIMITER)]

    def num_labels(self, text: str) -> int:
        """Length of `encode(text)`, without making it."""
        return len(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids that are already collapsed; special tokens are dropped, spaces collapsed.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        pieces = []
        for index in ids:
            # A negative id would quietly count from the end.
            if not 0 <= index < len(self._pieces):
                raise ValueError(f"token id {index}, wanted 0 to {len(self._pieces) - 1}")
            pieces.append(self._pieces[index])
        return " ".join("".join(pieces).split())

    def unknown_characters(self, text: str) -> set[str]:
        """Characters of a normalized text that `encode` would turn into `<unk>`."""
        return {character for character in text if character != " "} - self._ids.keys()


def build_vocab(texts: Iterable[str]) -> tuple[str, ...]:
    """Vocabulary of a corpus.

    Args:
        texts: normalized transcripts.

    Returns:
        The special tokens, the word delimiter, then every character by falling frequency, ties by
        code point.

    Raises:
        InputError: the texts hold no character.
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


def _kept(character: str, letters_only: bool) -> str:
    """The character, a space in its place, or nothing where it is invisible."""
    category = unicodedata.category(character)
    # Soft hyphens, joiners, byte-order and direction marks stand inside words, and so do the strokes that make an
    # Arabic word longer to the eye; variation selectors and enclosing marks make an emoji of a character.
    if category in ("Cf", "Me") or character == _TATWEEL:
        return ""
    if category == "Mn" and _VARIATION in unicodedata.name(character, ""):
        return ""
    if character == "'" or category[0] in ("L", "M") or (category[0] == "N" and not letters_only):
        return character
    return " "


def _name_character(character: str) -> str:
    name = unicodedata.name(character, "")
    shown = f"{character} " if character.isprintable() and unicodedata.category(character)[0] not in ("M", "Z") else ""
    return f"{shown}U+{ord(character):04X}{f' {name}' if name and not shown else ''}"


def _is_spoken(character: str) -> bool:
    """Whether a character makes a word; marks and apostrophes alone do not."""
    return unicodedata.category(character)[0] in ("L", "N")


def _ascii_table(letters_only: bool) -> dict[int, str]:
    characters = map(chr, range(128))
    return {ord(character): _kept(character.translate(_APOSTROPHES), letters_only) for character in characters}


_ASCII_UPPER, _ASCII_LOWER = _ascii_table(True), _ascii_table(False)


def load_tokenizer(vocab: str | os.PathLike[str] = "") -> CharTokenizer:
    """Returns the tokenizer of a vocab.json, or with "" that of the published English models."""
    return CharTokenizer.from_file(vocab) if vocab else CharTokenizer(tokens=FACEBOOK_TOKENS)
