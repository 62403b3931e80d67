"""Draws the texts of synthetic speakers: digit sequences and sentences of a small grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
NUM_DIGITS_PROB = (0.08, 0.16, 0.19, 0.19, 0.19, 0.19)  # probabilities of 1 to 6 digits
SENTENCE_RATIO = 0.4

# Few words, so that each occurs a hundred times in the few thousand utterances of the default corpus.
DETERMINERS = ("THE", "MY", "YOUR")
ADJECTIVES = ("RED", "GREEN", "BLUE", "OLD", "SMALL")
NOUNS = ("DOOR", "BOOK", "LAMP", "TABLE", "BOAT", "TREE")
ORDERS = ("OPEN", "FIND", "BRING")
VERBS = ("SEE", "WANT")
SUBJECTS = ("I", "YOU", "WE")
TIMES = ("NOW", "TODAY")


def draw_text(rng: np.random.Generator, *, sentence_ratio: float = SENTENCE_RATIO) -> str:
    """Returns a random digit sequence or sentence of upper-case letters, apostrophes and single spaces.

    Args:
        rng: What draws it.
        sentence_ratio: Probability of a sentence.
    """
    if rng.random() >= sentence_ratio:
        count = 1 + rng.choice(len(NUM_DIGITS_PROB), p=NUM_DIGITS_PROB)
        return " ".join(DIGITS[digit] for digit in rng.integers(10, size=count))

    def one(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def thing() -> str:
        adjective = one(ADJECTIVES) + " " if rng.random() < 0.6 else ""
        return f"{one(DETERMINERS)} {adjective}{one(NOUNS)}"

    kind = rng.integers(5)
    if kind == 0:
        return f"{one(('PLEASE ', ''))}{one(ORDERS)} {thing()}{one(('', ' ' + one(TIMES)))}"
    if kind == 1:
        return f"{one(SUBJECTS)} {one(VERBS)} {thing()}"
    if kind == 2:
        return f"DON'T {one(ORDERS)} {thing()} {one(TIMES)}"
    if kind == 3:
        return f"IT'S NEAR {thing()}"
    return f"WHERE IS {thing()}"
