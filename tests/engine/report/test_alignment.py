"""Alignments and confusions: what stands where, and sums that equal the counts of the score."""

from __future__ import annotations

from engine.evaluation.metrics import count_char_errors, count_word_errors
from engine.report.alignment import Pair, align_words, count_confusions

TEXTS = [("the  cat sat", "a cat sat down"), ("", "oh"), ("yes", ""), ("same", "same"), ("שלום עולם", "שלום עולמ")]


def test_words_stand_side_by_side():
    assert align_words("the cat sat", "a cat down sat") == [
        Pair("substituted", "the", "a"),
        Pair("hit", "cat", "cat"),
        Pair("inserted", "", "down"),
        Pair("hit", "sat", "sat"),
    ]
    assert align_words("yes we can", "") == [Pair("deleted", word, "") for word in ("yes", "we", "can")]
    assert align_words("", "") == []


def test_confusions_add_up_to_the_errors_of_the_score():
    found = count_confusions(TEXTS)
    assert found.num_utterances == len(TEXTS)
    assert found.words == {("the", "a"): 1, ("", "down"): 1, ("", "oh"): 1, ("yes", ""): 1, ("עולם", "עולמ"): 1}
    assert sum(found.words.values()) == sum(count_word_errors(*pair).num_errors for pair in TEXTS)
    wrong = {pair: count for pair, count in found.characters.items() if pair[0] != pair[1]}
    assert sum(wrong.values()) == sum(count_char_errors(*pair).num_errors for pair in TEXTS)
    assert found.characters["ם", "מ"] == 1 and found.characters["", "␣"] == 1
    assert found.characters["c", "c"] == 1
    assert count_confusions([]).words == {}
