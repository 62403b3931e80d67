"""Where utterances are cut, and what is left out and why."""

from __future__ import annotations

import pytest

from engine.inference.words import Timed
from engine.segmentation.cuts import NOT_SAID, TOO_LONG, TOO_SHORT, UNKNOWN, UNSURE, CutOptions, cut

OPTIONS = {
    "min_secs": 0.5,
    "max_secs": 5.0,
    "pause_secs": 1.0,
    "margin_secs": 0.2,
    "min_confidence": 0.5,
    "min_word_confidence": 0.05,
}


def word(text, start, end, confidence=1.0):
    return text, Timed(text, start, end, confidence, (Timed(text, start, end, confidence),))


def cuts(words, unknown=None, *, duration_secs=20.0, **options):
    unknown = unknown or [0] * (len(words) + 1)
    return [
        (round(one.start_secs, 3), round(one.end_secs, 3), " ".join(word.text for word in one.words), one.reason)
        for one in cut(words, unknown, duration_secs=duration_secs, options=CutOptions(**{**OPTIONS, **options}))
    ]


def test_words_are_one_utterance_until_a_long_pause():
    words = [word("a", 1.0, 1.5), word("b", 1.8, 2.0), word("c", 4.0, 5.0)]
    assert cuts(words) == [(0.8, 2.2, "a b", ""), (3.8, 5.2, "c", "")]
    # The margin ends where the recording does, and in the middle of a short pause.
    assert cuts([word("a", 0.1, 1.0), word("b", 2.1, 3.0)], duration_secs=3.1, margin_secs=2.0) == [
        (0.0, 1.55, "a", ""), (1.55, 3.1, "b", "")
    ]  # fmt: skip


def test_a_word_that_was_not_said_ends_an_utterance():
    words = [word("a", 1.0, 2.0), ("never", None), word("b", 2.1, 3.0)]
    assert cuts(words) == [(0.8, 2.05, "a", ""), (2.0, 2.0, "never", NOT_SAID), (2.05, 3.2, "b", "")]


def test_an_unsure_word_is_cut_out():
    words = [word("a", 1.0, 2.0), word("odd", 2.1, 2.6, 0.01), word("b", 2.7, 4.0)]
    assert cuts(words) == [(0.8, 2.05, "a", ""), (2.1, 2.6, "odd", UNSURE), (2.65, 4.2, "b", "")]


def test_no_utterance_reaches_into_a_word_that_is_cut_out():
    words = [word("a", 1.0, 2.0), word("odd", 2.0, 2.6, 0.01), word("b", 2.6, 4.0)]
    assert cuts(words) == [(0.8, 2.0, "a", ""), (2.0, 2.6, "odd", UNSURE), (2.6, 4.2, "b", "")]


def test_unknown_speech_gets_no_margin():
    words = [word("a", 1.0, 2.0), word("b", 4.0, 5.0)]
    assert cuts(words, [0, 9, 0]) == [(0.8, 2.0, "a", ""), (2.0, 4.0, "", UNKNOWN), (4.0, 5.2, "b", "")]
    assert cuts(words, [9, 0, 9], duration_secs=9.0) == [
        (0.0, 1.0, "", UNKNOWN), (1.0, 2.2, "a", ""), (3.8, 5.0, "b", ""), (5.0, 9.0, "", UNKNOWN)
    ]  # fmt: skip
    # A click is none.
    assert [one[3] for one in cuts(words, [0, 3, 0])] == ["", ""]


def test_a_long_utterance_is_divided_at_its_longest_pauses():
    words = [word("a", 0.0, 2.0), word("b", 2.1, 4.0), word("c", 4.5, 6.0), word("d", 6.1, 8.0)]
    assert cuts(words) == [(0.0, 4.2, "a b", ""), (4.3, 8.2, "c d", "")]
    # Of equal pauses, the one in the middle.
    words = [word(name, i, i + 0.9) for i, name in enumerate("abcd")]
    assert [one[2] for one in cuts(words, max_secs=2.5)] == ["a b", "c d"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([word("a", 1.0, 9.0)], TOO_LONG),
        ([word("a", 1.0, 1.05)], TOO_SHORT),
        ([word("a", 1.0, 2.0, 0.3)], UNSURE),
    ],
)
def test_what_cannot_be_kept_says_why(words, reason):
    assert [one[3] for one in cuts(words)] == [reason]


def test_a_recording_without_words_has_no_utterance():
    assert cuts([]) == [] and cuts([("a", None)]) == [(0.0, 0.0, "a", NOT_SAID)]
