"""Which labels are kept, why the others are not, and where long recordings are cut."""

from __future__ import annotations

import dataclasses

import pytest

from configs.base import get_config
from engine.inference.words import Timed
from engine.pseudo_labels.labels import REASONS, Label, LabelFilter, cut_at_pauses, make_labels


def word(text, start, end, confidence=0.95):
    characters = tuple(Timed(letter, start, end, confidence) for letter in text)
    return Timed(text, start, end, confidence, characters)


def make_filter(**changes):
    options = {**get_config().pseudo_label.to_dict(), **changes}
    return LabelFilter(**{field.name: options[field.name] for field in dataclasses.fields(LabelFilter)})


GOOD = Label((word("HELLO", 0.0, 0.5), word("YOU", 0.6, 1.0)), 0.0, 1.0, True, "HELLO YOU")


@pytest.mark.parametrize(
    ("changes", "bounds", "reason"),
    [
        ({}, {}, ""),
        ({"second_text": None}, {}, ""),
        ({"second_text": "hello you"}, {"max_disagreement": 0.0}, ""),  # a model of lower-case letters
        ({"words": ()}, {}, "no_text"),
        ({"duration_secs": 0.05}, {}, "too_short"),
        ({"duration_secs": 5.0}, {}, "too_slow"),
        ({"duration_secs": 5.0}, {"min_chars_per_sec": 0.0}, ""),
        ({"duration_secs": 5.0}, {"min_chars_per_sec": 0.0, "min_words_per_sec": 0.5}, "too_slow"),
        ({"duration_secs": 0.2}, {}, "too_fast"),
        ({"duration_secs": 0.2}, {"max_chars_per_sec": 0.0}, ""),
        ({"duration_secs": 0.2}, {"max_chars_per_sec": 0.0, "max_words_per_sec": 8.0}, "too_fast"),
        ({"words": (word("HELLO", 0.0, 1.0, 0.85),)}, {}, "low_confidence"),
        ({"words": (word("HELLO", 0.0, 1.0, 0.85),)}, {"min_confidence": 0.8}, "views_disagree"),
        ({"second_text": "HELLO TOO"}, {}, "views_disagree"),
        ({"second_text": "HELLO TOO"}, {"max_disagreement": 0.3}, ""),
        ({"second_text": ""}, {}, "views_disagree"),
    ],
)
def test_a_label_outside_a_bound_is_left_out_with_its_reason(changes, bounds, reason):
    assert make_filter(**bounds).find_reason(dataclasses.replace(GOOD, **changes)) == reason
    assert reason in ("", *REASONS)


def test_the_confidence_is_the_geometric_mean_of_the_characters():
    label = dataclasses.replace(GOOD, words=(word("AB", 0.0, 0.5, 0.9), word("CD", 0.6, 1.0, 0.4)), second_text="AB CX")
    assert label.confidence == pytest.approx(0.6)
    assert label.to_fields() == {
        "text": "AB CD",
        "confidence": 0.6,
        "chars_per_sec": 4.0,
        "words_per_sec": 2.0,
        "disagreement": 0.2,
    }


def test_a_recording_that_is_short_enough_is_one_label():
    words = [word("A", 0.0, 9.0), word("B", 11.0, 19.0)]
    for max_secs in (0.0, 20.0):
        (label,) = make_labels(words, duration_secs=20.0, max_secs=max_secs)
        assert label.is_whole and (label.start_secs, label.duration_secs, label.text) == (0.0, 20.0, "A B")


def test_a_long_recording_is_cut_in_the_longest_pause_of_the_second_half():
    words = [word("A", 0.0, 1.0), word("B", 4.0, 6.0), word("C", 6.5, 8.0), word("D", 9.5, 12.0), word("E", 12.5, 14.0)]
    # The pause of three seconds is in the first half of the first ten seconds; then 0.5 s and 1.5 s are there.
    assert cut_at_pauses(words, duration_secs=15.0, max_secs=10.0) == [0.0, 8.75, 15.0]
    first, second = make_labels(words, duration_secs=15.0, max_secs=10.0)
    assert (first.text, first.start_secs, first.duration_secs) == ("A B C", 0.0, 8.75)
    assert (second.text, second.start_secs, second.duration_secs) == ("D E", 8.75, 6.25)
    assert not first.is_whole


def test_a_recording_without_pauses_is_cut_where_it_must_be_and_the_torn_parts_are_left_out():
    words = [word("A", 0.0, 45.0), word("B", 46.0, 61.0)]
    assert cut_at_pauses(words, duration_secs=61.0, max_secs=20.0) == [0.0, 20.0, 40.0, 45.5, 61.0]
    labels = make_labels(words, duration_secs=61.0, max_secs=20.0)
    assert [label.text for label in labels] == ["", "A", "", "B"]
    assert [label.is_torn for label in labels] == [True, True, True, False]
    keep = make_filter(min_chars_per_sec=0.0)
    assert [keep.find_reason(label) for label in labels] == ["no_text", "too_long", "no_text", ""]


def test_an_edge_is_not_found_twice():
    words = [word("A", 0.0, 8.5), word("B", 9.00009, 30.0)]
    edges = cut_at_pauses(words, duration_secs=30.0, max_secs=10.0)
    assert edges == [0.0, pytest.approx(8.750045), pytest.approx(18.750045), pytest.approx(28.750045), 30.0]


def test_every_word_is_in_one_part_and_the_second_view_is_cut_with_the_first():
    words = [word(f"W{i}", i * 1.5, i * 1.5 + 1.0) for i in range(40)]
    second = [word(f"W{i}", i * 1.5 + 0.1, i * 1.5 + 1.1) for i in range(40)]
    labels = make_labels(words, duration_secs=61.0, max_secs=8.0, second=second)
    assert " ".join(label.text for label in labels) == " ".join(w.text for w in words)
    assert [label.disagreement for label in labels] == [0.0] * len(labels)
    assert max(label.duration_secs for label in labels) <= 8.0
    assert sum(label.duration_secs for label in labels) == pytest.approx(61.0)
