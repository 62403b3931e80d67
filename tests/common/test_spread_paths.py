"""Paths that stand for several files."""

from __future__ import annotations

import pytest

from common.spread_paths import expand_braces, is_pattern, is_spread


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a{08..11}.tar", ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{x}-{0..1}", ["{x}-0", "{x}-1"]),
        ("a{3..1}", []),
    ],
)
def test_ranges_in_braces_become_paths(path, expected):
    assert expand_braces(path) == expected


def test_a_range_without_end_is_refused():
    with pytest.raises(ValueError, match="stands for"):
        expand_braces("{0..999999999999}")


def test_a_name_with_marks_is_no_pattern_if_it_is_there(tmp_path):
    (tmp_path / "a[1].tar").touch()
    assert not is_pattern(tmp_path / "a[1].tar")
    assert is_pattern(tmp_path / "a[2].tar") and is_pattern("x/*.parquet") and is_pattern("x/{0..3}")
    assert not is_pattern("x/{a}.parquet") and not is_pattern("plain/path")
    assert is_spread("hf://datasets/a/b") and is_spread("*.tar") and not is_spread("a.tar")
