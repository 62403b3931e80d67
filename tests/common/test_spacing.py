"""Which texts have no spaces between words."""

from __future__ import annotations

import pytest

from common.spacing import split_unspaced, unspaced_length


@pytest.mark.parametrize(
    ("texts", "length"),
    [
        (["今天天气很好"] * 3, 6.0),
        (["今天天气很好", "THE CAT SAT", "ON THE MAT"], 6.0),  # some English does not change it
        (["今天 天气 很好"], 0.0),  # divided into words
        (["สวัสดีชาวโลกทุกคน"], 17.0),
        (["THE CAT"], 0.0),
        (["DONAUDAMPFSCHIFFFAHRTSGESELLSCHAFTSKAPITÄN"], 0.0),
        (["Привет мир"], 0.0),
        ([""], 0.0),
        ([], 0.0),
    ],
)
def test_the_mean_stretch_without_a_space_tells_them(texts, length):
    assert unspaced_length(iter(texts)) == pytest.approx(length)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("今天 天气", ["今", "天", " 天", "气"]),
        ("我用TensorFlow 2 和ESPnet", ["我", "用", "TensorFlow", " 2", " 和", "ESPnet"]),
        ("น้ำดื่ม", ["น้", "ำ", "ดื่", "ม"]),
        ("が", ["が"]),  # a mark of its own
        ("", []),
    ],
)
def test_a_text_without_spaces_is_divided_into_letters(text, units):
    assert split_unspaced(text) == units and "".join(units) == text
