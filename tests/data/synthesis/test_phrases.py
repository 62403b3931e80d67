"""What the synthetic speakers say."""

from __future__ import annotations

import collections
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.synthesis import phrases

NUM_DRAWS = 4000


def draw_many() -> list[str]:
    return [phrases.draw_text(np.random.default_rng([7, i])) for i in range(NUM_DRAWS)]


@given(seed=st.integers(0, 2**32 - 1))
def test_text_is_upper_case_letters_apostrophes_and_single_spaces(seed):
    text = phrases.draw_text(np.random.default_rng(seed))
    assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", text)
    words = text.split()
    digits = [word for word in words if word in phrases.DIGITS]
    assert len(digits) in (0, len(words)), "a text is either digits or a sentence"
    assert len(words) <= (6 if digits else 8)


def test_text_is_a_function_of_the_generator():
    draws = [phrases.draw_text(np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_shares_and_lengths_are_the_documented_ones():
    texts = draw_many()
    lengths = collections.Counter(len(text.split()) for text in texts if text.split()[0] in phrases.DIGITS)
    num_sequences = sum(lengths.values())
    assert abs(num_sequences / NUM_DRAWS - (1 - phrases.SENTENCE_RATIO)) < 0.03
    for count, prob in enumerate(phrases.NUM_DIGITS_PROB, start=1):
        assert abs(lengths[count] / num_sequences - prob) < 0.03
    assert set(lengths) == {1, 2, 3, 4, 5, 6}


def test_every_word_of_the_vocabulary_is_said_often_enough_to_learn():
    counts = collections.Counter(word for text in draw_many() for word in text.split())
    vocabulary = {
        *phrases.DIGITS, *phrases.DETERMINERS, *phrases.ADJECTIVES, *phrases.NOUNS, *phrases.ORDERS,
        *phrases.VERBS, *phrases.SUBJECTS, *phrases.TIMES,
        "PLEASE", "DON'T", "IT'S", "NEAR", "WHERE", "IS",
    }  # fmt: skip
    assert set(counts) == vocabulary
    assert "OH" not in vocabulary
    assert min(counts.values()) >= 50
    digits = [counts[digit] for digit in phrases.DIGITS]
    assert max(digits) < 1.25 * min(digits)
