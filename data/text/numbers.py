"""Spells numbers out with num2words, for the languages that it has."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from common.text_style import TextStyle, main_language, parse_text_style
from data.common.errors import InputError

_POINT_LANGUAGES = ("am", "ar", "bn", "cy", "en", "fa", "he", "ja", "kn", "ko", "te", "th")  # the others: 3,5
_UNSPACED = ("ja", "th")
_INDIAN = ("bn", "en_IN", "kn", "te")  # write 1,00,000
# Endings that make an ordinal, where the library's word is the one that is meant.
_ORDINAL_ENDINGS = {
    "en": "(?:st|nd|rd|th)", "fr": "(?:er|e|\u00e8me|eme)", "nl": "(?:ste|de|e)", "es": "\u00ba", "it": "\u00ba",
    "pt": "\u00ba",
}  # fmt: skip
_MOST_DIGITS = 15  # a longer number is a code or a telephone number, read digit by digit
_RANGE = re.compile(r"(?<=\d)[:/\u2013\u2014-](?=\d)")  # between the parts of 10:30 and 1990-95
_DIGIT = re.compile(r"\d")


def spell_numbers(text: str, language: str) -> str:
    """Returns a text with its numbers as words; no digit is left.

    Integers with or without separators of thousands, decimal numbers and, in some languages, ordinals are read as one
    number each. A number that begins with 0, or is longer than 15 digits, is read digit by digit.

    Args:
        text: Transcript.
        language: Code of `check_numbers`.

    Raises:
        InputError: If num2words is not installed or does not have the language.
    """
    if not any(map(str.isnumeric, text)):
        return text
    text = _RANGE.sub(" ", "".join(map(_as_digits, text)))

    def spell(found: re.Match[str]) -> str:
        integer = re.sub(r"\D", "", found["integer"])
        words = _spell(integer, (found["decimals"] or "")[1:], bool(found["ordinal"]), language)
        if main_language(language) in _UNSPACED:
            return words.replace(" ", "")
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        return " " * _is_in_word(before) + words + " " * _is_in_word(after)

    return _pattern(language).sub(spell, text)


def _is_in_word(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] in ("L", "M", "N")


def check_numbers(style: TextStyle) -> str:
    """Returns why the numbers of a style cannot be spelled out; "" if they can, or if the style leaves them alone."""
    if not style.numbers:
        return ""
    try:
        from num2words import CONVERTER_CLASSES
    except ImportError:
        return "number words need num2words, which is not installed: pip install -e '.[numbers]'"
    language = number_language(style)
    # The library goes by the first two letters, and would read numbers in Estonian (est) as Spanish.
    if language in CONVERTER_CLASSES or main_language(language) in CONVERTER_CLASSES:
        return ""
    return f"num2words has no number words of {style.language}; it has {', '.join(sorted(CONVERTER_CLASSES))}"


def check_text_style(text: str, *, is_used: bool = True) -> None:
    """Checks that a style can be applied.

    Args:
        text: Style of `normalize_transcript`.
        is_used: Whether the library of number words must be there.

    Raises:
        ValueError: If it cannot be read, or needs a library or a language that is not there; does not name the field.
    """
    style = parse_text_style(text)
    if is_used and (fault := check_numbers(style)):
        raise ValueError(fault)


def number_language(style: TextStyle) -> str:
    """Returns the language of a style's number words."""
    return style.language or "en"  # of librispeech; the others name one


@lru_cache(maxsize=16)
def _pattern(language: str) -> re.Pattern[str]:
    short = main_language(language)
    decimal, thousands = (".", ",") if short in _POINT_LANGUAGES else (",", ".")
    middle = "{2,3}" if language in _INDIAN else "{3}"
    separator = f"[{thousands}'\u2019\u00a0\u2009\u202f\u066c]"
    grouped = rf"\d{{1,3}}(?:{separator}\d{middle})*{separator}\d{{3}}(?!\d)"
    ending = rf"{_ORDINAL_ENDINGS[short]}(?!\w)" if short in _ORDINAL_ENDINGS else "(?!)"
    return re.compile(
        rf"(?P<integer>{grouped}|\d+)(?:(?P<decimals>[{decimal}\u066b]\d+)|(?P<ordinal>{ending}))?", re.IGNORECASE
    )


def _as_digits(character: str) -> str:
    """Returns a superscript or circled number as ordinary digits, a fraction as a space, others as they are."""
    if character.isdecimal() or not character.isnumeric():
        return character
    plain = unicodedata.normalize("NFKC", character)
    if "\u2044" in plain:  # one half, which the library cannot say; the doctor names it as lost
        return " "
    return f" {plain} " if _DIGIT.search(plain) else character


@lru_cache(maxsize=1 << 16)
def _spell(integer: str, decimals: str, is_ordinal: bool, language: str) -> str:
    is_code = len(integer) > _MOST_DIGITS or (len(integer) > 1 and int(integer[0]) == 0)
    if is_code or (words := _ask(integer, decimals, is_ordinal, language)) is None:
        words = " ".join(_ask(digit, "", False, language) or "" for digit in integer + decimals)
    # The library writes "one thousand, two hundred".
    return " ".join(words.replace(",", " ").split())


def _ask(integer: str, decimals: str, is_ordinal: bool, language: str) -> str | None:
    """Returns the words of the library, None if it has none for this number."""
    try:
        from num2words import num2words
    except ImportError as error:
        raise InputError("number words need num2words, which is not installed: pip install -e '.[numbers]'") from error
    number: Any = f"{int(integer)}.{''.join(str(int(digit)) for digit in decimals)}" if decimals else int(integer)
    try:
        words = str(num2words(number, lang=language, to="ordinal" if is_ordinal else "cardinal"))
    # A converter refuses a number with any of several errors, each language with its own.
    except Exception:
        return None
    return None if any(map(str.isdigit, words)) else words
