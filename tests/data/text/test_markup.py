"""Markup in brackets: named, and dropped by a rule of the style."""

from __future__ import annotations

import pytest

from data.text.markup import drop_markup, dropped_markup, find_markup
from data.text.normalization import normalize_transcript

TEXT = "so <noise> he [laughter] said (um) {uh} it"


@pytest.mark.parametrize(
    ("style", "left"),
    [
        ("librispeech", "SO NOISE HE LAUGHTER SAID UM UH IT"),
        ("librispeech+drop_markup", "SO HE SAID IT"),
        ("librispeech+drop_markup=<>[]", "SO HE SAID UM UH IT"),
        ("unicode+drop_markup={}", "so noise he laughter said um it"),
        ("none+drop_markup=()", "so <noise> he [laughter] said {uh} it"),
    ],
)
def test_the_named_brackets_are_dropped(style: str, left: str) -> None:
    assert normalize_transcript(TEXT, style) == left
    assert normalize_transcript(left, style) == left


def test_what_is_dropped_and_what_is_left_is_found() -> None:
    style = "unicode+drop_markup=<>[]"
    assert dropped_markup(TEXT, style) == ["<noise>", "[laughter]"]
    assert find_markup(drop_markup(TEXT, style)) == ["(um)", "{uh}"]
    assert dropped_markup(TEXT, "unicode") == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[the <noise> of cars] go", "go"),
        ("<b>bold</b> word", "bold word"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<noise>", ""),
        (f"[{'a long remark, ' * 9}] yes", "yes"),
        ("an unclosed [bracket stays", "an unclosed [bracket stays"),
        ("\uff3bnoise\uff3d yes", "yes"),
        ("no  markup", "no  markup"),
    ],
)
def test_brackets_within_brackets_and_signs_of_arithmetic(text: str, left: str) -> None:
    assert normalize_transcript(text, "none+drop_markup") == left
