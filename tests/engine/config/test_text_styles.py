"""Styles of texts in a config: checked before anything is opened, the field named."""

from __future__ import annotations

import functools

import pytest

from configs.base import get_config
from data.text.numbers import check_text_style
from engine.config.field_rules import check_values
from engine.config.text_styles import check_text_styles


def check(style="librispeech", normalizers=(), *, is_used=True):
    config = get_config()
    config.data.text_normalization = style
    config.eval.normalizers = normalizers
    check_text_styles(config.to_dict(), functools.partial(check_text_style, is_used=is_used))


@pytest.mark.parametrize("style", ["auto", "none", "auto+drop_markup", "unicode+language=tr+numbers+keep_case"])
def test_styles_with_options_are_taken(style):
    check(style, ("plain=unicode+drop_markup", "raw=none"))


@pytest.mark.parametrize(
    ("style", "normalizers", "line"),
    [
        ("unicod", (), r"data\.text_normalization='unicod': no such value; did you mean unicode\?"),
        ("auto+numbers", (), r"data\.text_normalization='auto\+numbers': .*add it, such as \+language=en"),
        ("none", ("a=unicode+bogus",), r"eval\.normalizers='unicode\+bogus': no option 'bogus'"),
        ("none", ("a=auto",), r"eval\.normalizers='auto': wanted one of librispeech, unicode, none"),
        ("none", ("unicode",), r"eval\.normalizers='unicode': wanted NAME=STYLE"),
    ],
)
def test_a_wrong_style_is_one_line_with_its_field(style, normalizers, line):
    with pytest.raises(ValueError, match=line):
        check(style, normalizers)


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [("data", "text_normalization", 3), ("eval", "normalizers", "a=none"), ("eval", "normalizers", (3,)),
     ("eval", "slices", "accent"), ("eval", "slices", ("",))],
)  # fmt: skip
def test_a_value_of_another_type_is_one_line(group, field, value):
    with pytest.raises(ValueError, match=rf"{group}\.{field}=.*: wanted a "):
        check_values({group: {field: value}})


def test_a_mode_that_reads_no_text_needs_no_number_words():
    with pytest.raises(ValueError, match=r"num2words has no number words of hi"):
        check("unicode+language=hi+numbers")
    check("unicode+language=hi+numbers", is_used=False)


def test_a_config_of_an_older_version_has_no_normalizers():
    config = get_config()
    del config.eval.normalizers
    check_text_styles(config.to_dict(), check_text_style)
    check_text_styles({}, check_text_style)
