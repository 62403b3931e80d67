"""Tokens on frames to words: by hand."""

from __future__ import annotations

import types

import pytest

from engine.inference.words import Timed, find_words, mean_confidence

# blank, unknown, space, letters
TOKENIZER = types.SimpleNamespace(token_strings=("", "", " ", "a", "b"))


def test_words_by_hand():
    word = [(2, 0, 1, 0.9), (3, 2, 4, 0.5), (4, 5, 6, 0.08), (2, 8, 9, 0.1)]
    spans = [*word, (2, 9, 10, 0.1), (1, 11, 12, 0.4), (4, 15, 18, 0.7)]
    first, second = find_words(spans, TOKENIZER, 0.02)
    assert (first.text, second.text) == ("ab", "b")
    assert (first.start_secs, first.end_secs) == (pytest.approx(0.04), pytest.approx(0.12))
    assert first.confidence == pytest.approx(0.2)  # sqrt(0.5 * 0.08)
    assert (second.start_secs, second.end_secs, second.confidence) == (0.3, 0.36, pytest.approx(0.7))
    assert [(c.text, c.start_secs) for c in first.characters] == [("a", 0.04), ("b", 0.1)]
    assert first.to_dict() == {
        "text": "ab",
        "start": 0.04,
        "end": 0.12,
        "confidence": 0.2,
        "characters": [
            {"text": "a", "start": 0.04, "end": 0.08, "confidence": 0.5},
            {"text": "b", "start": 0.1, "end": 0.12, "confidence": 0.08},
        ],
    }


def test_a_token_that_begins_with_a_space_begins_a_word():
    tokenizer = types.SimpleNamespace(token_strings=("", " ", " the", "m", " a"))
    spans = [(2, 1, 2, 0.5), (3, 2, 3, 0.5), (4, 4, 5, 0.5), (1, 6, 7, 0.5), (3, 8, 9, 0.5)]
    words = find_words(spans, tokenizer, 0.02)
    assert [word.text for word in words] == ["them", "a", "m"]
    assert [character.text for character in words[0].characters] == ["the", "m"]
    assert words[0].start_secs == 0.02


@pytest.mark.parametrize("spans", [[], [(2, 0, 1, 0.5)], [(1, 0, 1, 0.5), (2, 1, 2, 0.5)]])
def test_no_words(spans):
    assert find_words(spans, TOKENIZER, 0.02) == []


def test_a_probability_that_was_rounded_to_nothing_does_not_end_the_work():
    assert 0 < mean_confidence([Timed("a", 0, 1, 0.0), Timed("b", 1, 2, 1.0)]) < 1e-10
    assert mean_confidence([]) == 0.0
