"""Durations, texts and errors as people read them."""

from __future__ import annotations

import pytest

from common.readable import describe_error, duration, shorten


@pytest.mark.parametrize(
    ("secs", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (864_000, "10.0 days")],
)
def test_a_duration_has_its_most_readable_unit(secs, text):
    assert duration(secs) == text


def test_a_text_that_is_too_long_ends_with_an_ellipsis_within_the_limit():
    assert shorten("a" * 40, 40) == "a" * 40
    assert shorten("a" * 41, 40) == "a" * 39 + "…"


def test_an_error_has_no_line_breaks_and_without_a_text_the_name_of_its_type():
    assert describe_error(ValueError("first\n  second")) == "first second"
    assert describe_error(ValueError("first second"), 5) == "first"
    assert describe_error(MemoryError()) == "MemoryError"
