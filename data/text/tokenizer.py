"""Transcripts: normalization, and the character tokenizer over a vocab.json."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from common import special_tokens as roles
from common import storage
from common.json_files import MalformedFileError, is_kind, parse_object
from common.special_tokens import find_special_tokens
from data.common.errors import InputError
from data.common.files import write_text_atomic

PAD, BOS, EOS, UNKNOWN, WORD_DELIMITER = "<pad>", "<s>", "</s>", "<unk>", "|"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN)
# Facebook's English vocabulary, in the order of the published checkpoints' output layer.
FACEBOOK_TOKENS = (*SPECIAL_TOKENS, WORD_DELIMITER, *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
# In brackets, and without a bracket inside: <unk>, [laughter], (noise), {um}.
_MARKUP = re.compile(r"<[^<>\s][^<>]{0,40}>|\[[^\[\]]{1,40}\]|\([^()]{1,40}\)|\{[^{}]{1,40}\}")
_TATWEEL, _VARIATION = "\u0640", "VARIATION SELECTOR"
TEXT_STYLES = ("librispeech", "unicode", "none")
AUTO = "auto"  # a style, or a vocabulary, that the texts decide about
# A letter or digit that the librispeech style drops, or another case of it.
_BEYOND_CAPITALS = re.compile(r"[^\W_A-Z]")

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


def choose_text_style(texts: Iterable[str]) -> str:
    """Returns the style that loses nothing of a corpus: "librispeech" where every letter is of A-Z, else "unicode"."""
    has_letters = False
    for text in texts:
        if _BEYOND_CAPITALS.search(text):
            return "unicode"
        has_letters = has_letters or any(map(str.isalpha, text))
    return "librispeech" if has_letters else "unicode"


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
    """Characters to token ids and back, over the vocabulary of a CTC head; ids are those of its rows."""

    def __init__(self, *, tokens: Sequence[str], special_tokens: Mapping[str, str] | None = None):
        """Checks and keeps the vocabulary.

        Args:
            tokens: token of each id.
            special_tokens: role -> token as `common.special_tokens.find_special_tokens` returns it; None goes by the
                usual names. Without a token for unknown characters, or for the space between words, these have no
                label.

        Raises:
            InputError: a token is repeated or empty, or none is the CTC blank.
        """
        self.tokens = tuple(tokens)
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated or "" in self.tokens:
            raise InputError(f"the vocabulary's token {(repeated or [''])[0]!r} is empty or repeated: remove it")
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
        self._ids = ids
        self._pieces = [" " if token == delimiter else "" if token in silent else token for token in self.tokens]
        # What a text can hold; the blank of a vocabulary may look like a character, and is no label.
        self._labels = {token: index for token, index in ids.items() if token not in silent}
        if delimiter is not None:
            self._labels[" "] = ids[delimiter]
        long = sorted((token for token in self._labels if len(token) > 1), key=len, reverse=True)
        self._long = re.compile("|".join(map(re.escape, [*long, ""])) + ".", re.DOTALL) if long else None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Reads a vocab.json, one object of token -> id with the ids 0 to N - 1, and its roles from beside it.

        Raises:
            InputError: no such file, not such an object, or a vocabulary that `__init__` refuses.
        """
        if not storage.is_file(path):
            raise InputError(f"no vocabulary {path}: make one with python -m data.vocab")
        try:
            ids = parse_object(storage.read_bytes(path), os.fspath(path))
        except MalformedFileError as error:
            raise InputError(f"{error}: make it again") from error
        if not all(is_kind(index, int) for index in ids.values()):
            raise InputError(f"{path} is not an object of token -> id: make it again")
        if sorted(ids.values()) != list(range(len(ids))):
            raise InputError(f"the ids in {path} are not 0 to {len(ids) - 1}, each once: mend it")
        try:
            return cls(tokens=sorted(ids, key=ids.__getitem__), special_tokens=_roles_beside(path, ids))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocab.json that `from_file` reads, atomically.

        The roles of the tokens go to tokenizer_config.json beside it where their names, or an older file there, would
        say others.
        """
        try:
            is_known = _roles_beside(path, self._ids) == self.special_tokens
        except InputError:
            is_known = False  # what lies there is damaged, and is replaced
        if not is_known:
            fields = {"tokenizer_class": "Wav2Vec2CTCTokenizer", **self.special_tokens}
            write_text_atomic(_beside(path), json.dumps(fields, ensure_ascii=False, indent=1) + "\n")
        write_text_atomic(path, json.dumps(self._ids, ensure_ascii=False, indent=1) + "\n")

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def pieces(self) -> tuple[str, ...]:
        """What each token says: its characters, a space between words, "" for a special token."""
        return tuple(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Ids of a normalized text; of several tokens that begin alike the longest is taken."""
        ids, unknown = self._labels, self.unknown_id
        if unknown is not None:
            return [ids.get(token, unknown) for token in self._split(text)]
        return [ids[token] for token in self._split(text) if token in ids]

    def num_labels(self, text: str) -> int:
        """Length of `encode(text)`, without making it where every character is a label."""
        if self.unknown_id is None or self._long is not None:
            return len(self.encode(text))
        return len(text)

    def num_unknown(self, text: str) -> int:
        """Number of the characters that `unknown_characters` lists, each time it occurs."""
        return sum(token not in self._labels for token in self._split(text))

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
        """Characters of a normalized text that no token of the vocabulary says."""
        return set(self._split(text)) - self._labels.keys()

    def _split(self, text: str) -> Iterable[str]:
        """A text as characters, or as tokens of several where the vocabulary has such."""
        return text if self._long is None else self._long.findall(text)


def _beside(path: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.dirname(os.fspath(path)), roles.TOKENIZER_FILE)


def _roles_beside(path: str | os.PathLike[str], tokens: Collection[str]) -> dict[str, str]:
    """Roles of a vocabulary's tokens by the tokenizer_config.json beside it, else by their usual names."""
    config = _beside(path)
    try:
        fields = parse_object(storage.read_bytes(config), config) if storage.is_file(config) else {}
        return find_special_tokens(tokens, fields, where=config)
    except MalformedFileError as error:
        raise InputError(f"{error}: mend it or remove it") from error


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
