"""A style with its options in one text."""

from __future__ import annotations

import pytest

from common.text_style import TextStyle, parse_text_style, with_base


def test_options_are_read_in_any_order() -> None:
    found = parse_text_style("unicode+numbers+drop_markup=[]<>+language=PT-br+keep_case+keep_punctuation")
    assert found == TextStyle("unicode", "pt_BR", True, ("<>", "[]"), True, True)
    assert parse_text_style("librispeech+drop_markup").drop_markup == ("<>", "[]", "()", "{}")
    assert parse_text_style("none") == TextStyle("none")
    assert with_base("auto+language=tr+numbers", "unicode") == "unicode+language=tr+numbers"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("unicod", "no such value; did you mean unicode?"),
        ("unicode+number", "no option 'number'; did you mean numbers?"),
        ("unicode+", "no option ''"),
        ("unicode+language=turkish", "language=turkish: wanted a code"),
        ("unicode+language", "language=: wanted a code"),
        ("unicode+language=", "language= has no value"),
        ("unicode+keep_case=yes", "keep_case takes no value"),
        ("unicode+keep_case+keep_case", "keep_case is given twice"),
        ("unicode+drop_markup=<[", "drop_markup=<[: wanted pairs of brackets"),
        ("unicode+drop_markup=||", "wanted pairs of brackets"),
        ("unicode+numbers", "numbers are words of a language; add it, such as +language=en"),
        ("auto+numbers", "add it, such as +language=en"),
        ("librispeech+keep_case", "write unicode+keep_case"),
        ("none+keep_punctuation", "leave the option out"),
    ],
)
def test_a_wrong_style_says_what_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_text_style(text)
    assert fault in str(error.value) and "\n" not in str(error.value)
