"""Numbers as words, in the languages of num2words."""

from __future__ import annotations

import sys

import pytest

from common.text_style import parse_text_style
from data.common.errors import InputError
from data.text.normalization import normalize_transcript
from data.text.numbers import check_numbers, check_text_style, spell_numbers


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "21 cats", "twenty-one cats"),
        ("en", "1,234 or 1,00", "one thousand two hundred and thirty-four or one,zero zero"),
        ("en", "3.5 of 10", "three point five of ten"),
        ("en", "the 3rd, 21ST and 4th", "the third, twenty-first and fourth"),
        ("en", "A4 x2y", "A four x two y"),
        ("en", "007", "zero zero seven"),
        ("en", "1234567890123456", "one two three four five six seven eight nine zero one two three four five six"),
        ("en", "at 10:30, 1990-95", "at ten thirty, one thousand nine hundred and ninety ninety-five"),
        ("en", "x\u00b2 \u2460", "x two   one "),
        ("en_IN", "1,00,000", "one lakh"),
        (
            "de",
            "1.234 Hunde, 2,5 Katzen",
            "eintausendzweihundertvierunddrei\u00dfig Hunde, zwei Komma f\u00fcnf Katzen",
        ),
        ("fr", "1\u202f000 fois, la 2e", "mille fois, la deuxi\u00e8me"),
        ("nl", "de 3de", "de derde"),
        ("tr", "5 ki\u015fi", "be\u015f ki\u015fi"),
        ("ja", "\u7b2c5\u56de 12", "\u7b2c\u4e94\u56de \u5341\u4e8c"),
        ("ar", "\u0663", "\u062b\u0644\u0627\u062b\u0629"),
        ("en", "no number", "no number"),
    ],
)
def test_numbers_become_words(language: str, text: str, words: str) -> None:
    assert spell_numbers(text, language) == words


def test_a_fraction_that_the_library_cannot_say_becomes_a_space() -> None:
    assert spell_numbers("1\u00bd", "en") == "one "


def test_a_number_that_a_language_refuses_is_read_digit_by_digit() -> None:
    # Lithuanian has no words for so large a number, nor for ordinals.
    assert "\u0161imtai" in spell_numbers("500", "lt")
    found = spell_numbers("999,999", "lt")
    assert found and not any(map(str.isdigit, found))


@pytest.mark.parametrize("style", ["librispeech+numbers", "unicode+language=de+numbers", "none+language=fr+numbers"])
@pytest.mark.parametrize("text", ["7 und 1.234,5", "x\u00b2 \u00bd 99% 3rd 10:30", "007-08", "\u0661\u0662 \u2155"])
def test_no_digit_is_left_and_a_second_time_changes_nothing(style: str, text: str) -> None:
    once = normalize_transcript(text, style)
    assert not any(map(str.isdigit, once))
    assert normalize_transcript(once, style) == once


def test_the_style_decides_the_case_of_the_words() -> None:
    assert normalize_transcript("I am 21", "librispeech+numbers") == "I AM TWENTY ONE"
    assert normalize_transcript("I am 21.", "unicode+language=en+numbers+keep_case+keep_punctuation") == (
        "I am twenty-one."
    )
    assert normalize_transcript("I am 21", "librispeech") == "I AM"


def test_a_language_without_number_words_is_named() -> None:
    assert check_numbers(parse_text_style("unicode+language=de_AT+numbers")) == ""
    assert check_numbers(parse_text_style("unicode+language=hi")) == ""
    with pytest.raises(ValueError, match=r"num2words has no number words of hi; it has am, ar, .*, vi$"):
        check_text_style("unicode+language=hi+numbers")
    check_text_style("unicode+language=hi+numbers", is_used=False)
    assert check_numbers(parse_text_style("unicode+language=tet+numbers")) == ""


@pytest.mark.parametrize("language", ["est", "fil", "slk"])  # which begin as es, fi and sl do
def test_a_language_is_not_taken_for_another_that_begins_alike(language: str) -> None:
    with pytest.raises(ValueError, match=f"no number words of {language}; it has"):
        check_text_style(f"unicode+language={language}+numbers")


def test_a_missing_library_is_one_line_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(ValueError, match=r"needs? num2words, which is not installed: pip install -e '\.\[numbers\]'$"):
        check_text_style("librispeech+numbers")
    with pytest.raises(InputError, match=r"pip install -e '\.\[numbers\]'$"):
        spell_numbers("123456", "en")  # no number of the other tests, whose words are kept
    check_text_style("librispeech")
