"""Normalizes transcripts for training and scoring, and tells what becomes of single characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from common.text_style import AUTO, STYLES, TextStyle, parse_text_style, text_base, with_base
from data.text import casing
from data.text.markup import drop_markup
from data.text.numbers import number_language, spell_numbers
from data.text.tokenizer import WORD_DELIMITER

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
            punctuation and symbols become a space. Lower case is Unicode's, so that the Turkish I becomes i,
            unless an option names the language.
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
