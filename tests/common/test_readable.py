"""Durations as people read them."""

from __future__ import annotations

import pytest

from common.readable import duration


@pytest.mark.parametrize(
    ("secs", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (864_000, "10.0 days")],
)
def test_a_duration_has_its_most_readable_unit(secs, text):
    assert duration(secs) == text
