"""Upper and lower case of Turkish, Azeri and Lithuanian, as Unicode's SpecialCasing.txt has them."""

from __future__ import annotations

import unicodedata

import pytest

from data.text.casing import lower, upper
from data.text.normalization import normalize_transcript, read_character


@pytest.mark.parametrize("language", ["tr", "az", "tr_TR", "tur", "aze"])
def test_the_dotted_and_the_dotless_i_are_two_letters(language: str) -> None:
    assert lower("I\u0130", language) == "\u0131i"
    assert upper("\u0131i", language) == "I\u0130"
    for style in (f"unicode+language={language}", f"librispeech+language={language}"):
        once = normalize_transcript("DI\u015eARI \u0130\u00e7eri \u0131\u015f\u0131k I\u0307", style)
        assert normalize_transcript(once, style) == once
    assert once == "DI\u015eARI \u0130\u00c7ER\u0130 I\u015eIK \u0130"
    assert normalize_transcript("IL", f"unicode+language={language}") == "\u0131l"  # not the short way of ASCII
    assert normalize_transcript("il", f"librispeech+language={language}") == "\u0130L"


@pytest.mark.parametrize(
    ("capital", "small"),
    [
        ("\u00cc", "i\u0307\u0300"),
        ("\u00cd", "i\u0307\u0301"),
        ("\u0128", "i\u0307\u0303"),
        ("\u012e\u0301", "\u012f\u0307\u0301"),
        ("J\u0303", "j\u0307\u0303"),
        ("IJ", "ij"),
        ("\u0160", "\u0161"),
    ],
)
def test_lithuanian_keeps_the_dot_below_an_accent(capital: str, small: str) -> None:
    assert lower(capital, "lt") == small
    assert unicodedata.normalize("NFC", upper(small, "lt")) == capital
    assert normalize_transcript(capital, "unicode+language=lt") == small
    assert normalize_transcript(small, "librispeech+language=lt") == capital
    assert normalize_transcript(small, "unicode+language=lt") == small
    assert lower(capital, "lit") == small


def test_without_a_language_case_is_that_of_unicode() -> None:
    assert (lower("I\u0130\u00cc"), upper("\u0131i")) == ("ii\u00ec", "II")
    assert normalize_transcript("I\u0130", "unicode+language=de") == "ii"


@pytest.mark.parametrize("style", ["unicode", "unicode+language=lt"])
def test_a_dot_too_many_goes_at_once(style: str) -> None:
    assert normalize_transcript("\u0130\u0307 \u0130\u0307\u0307", style) == "i i"


def test_a_letter_whose_case_the_language_changes_is_not_read_otherwise() -> None:
    assert read_character("I", "unicode+language=tr") == "I"
    assert read_character("\u0130", "unicode+language=tr") == "\u0130"
    assert read_character("\u0130", "unicode") == "i"
