"""Which texts have no spaces between words."""

from __future__ import annotations

import pytest

from common.spacing import unspaced_length


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
