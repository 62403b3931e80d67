"""Paths whose names have commas, after a command line has split them."""

from __future__ import annotations

import pytest

from common.split_paths import join_split_paths


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Makes empty files of some names in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).touch()

    return make


def test_a_file_name_with_commas_is_put_together_again(write):
    write("Hello, world.wav", "b.wav", "c.wav", "x,y , z.wav", "Hello")
    assert join_split_paths(["Hello", "world.wav"]) == ["Hello, world.wav"]
    assert join_split_paths(["Hello", "world.wav", "b.wav"]) == ["Hello, world.wav", "b.wav"]
    assert join_split_paths(["b.wav", "c.wav"]) == ["b.wav", "c.wav"]
    assert join_split_paths(["c.wav", "x", "y", "z.wav"]) == ["c.wav", "x,y , z.wav"]  # its commas are of two kinds
    assert join_split_paths(["c.wav", "Hello", "w*.wav", "-"]) == ["c.wav", "Hello, w*.wav", "-"]
    write("b.wav,c.wav")
    assert join_split_paths(["b.wav", "c.wav"]) == ["b.wav,c.wav"]  # the whole value is a file


def test_a_long_list_is_divided_at_once(write):
    many = [f"{index}.wav" for index in range(2000)]
    write(*many)
    assert join_split_paths(many) == many
