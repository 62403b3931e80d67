"""One set worked out: sums, groups, matrix, changes; any number of utterances."""

from __future__ import annotations

import pytest

from engine.report.sets import compare_predictions
from engine.report.statistics import MIN_SPEAKERS
from tests.engine.report.toys import build, make_predictions


def test_rates_of_a_set_are_those_of_its_score():
    texts = [("a b c", "a x c"), ("a b", "a"), ("c", "c d e"), ("a", "a")] * 5
    found = build(make_predictions(texts, speakers=["p", "q", "p", "q"] * 5, secs=[3.0, 2.0, 1.0, 0.5] * 5))
    assert (found.num_utterances, found.num_right, found.num_with_errors) == (20, 5, 15)
    assert (found.words.hits, found.words.num_errors, found.words.num_reference) == (25, 20, 35)
    assert (found.words.substitutions, found.words.deletions, found.words.insertions) == (5, 5, 10)
    assert found.interval.low < 20 / 35 < found.interval.high
    assert (found.num_pieces, found.by_speaker) == (20, False)
    # Worst first: p has 15 errors in 20 words, q 5 in 15.
    assert [(one.name, one.words.num_errors, one.words.num_reference) for one in found.speakers] == [
        ("p", 15, 20),
        ("q", 5, 15),
    ]
    assert [(one.kind, one.reference, one.hypothesis, one.count, one.num_said) for one in found.confusions] == [
        ("inserted", "", "d", 5, 0),
        ("inserted", "", "e", 5, 0),
        ("deleted", "b", "", 5, 10),
        ("substituted", "b", "x", 5, 10),
    ]
    assert [one.prediction["errors"] for one in found.utterances] == [2, 2, 2]
    assert found.change is None and found.utterances[0].change == "new"


def test_groups_by_length_hold_every_utterance_once_short_ones_first():
    secs = [float(number) for number in range(1, 61)]
    texts = [("a b", "a")] * 30 + [("a b", "a b")] * 30
    found = build(make_predictions(texts, secs=secs))
    assert found.length_unit == "s"
    assert [one.num_utterances for one in found.lengths] == [10] * 6
    assert [one.words.num_errors for one in found.lengths] == [10, 10, 10, 0, 0, 0]
    assert found.lengths[0].name == "1.0 to 10.0" and found.lengths[-1].name == "51.0 to 60.0"
    by_words = build(make_predictions([("a", "a")] * 10 + [("a b c", "")] * 10))
    assert by_words.length_unit == "words"
    assert [(one.name, one.words.num_errors) for one in by_words.lengths] == [("1", 0), ("3", 30)]


def test_the_matrix_has_shares_of_the_times_said_over_the_whole_set():
    found = build(make_predictions([("ab", "aa"), ("ab", "ab"), ("b", ""), ("a", "ba")])).matrix
    assert found.symbols == ["a", "b"]
    assert found.rows == [("a", 3, [(3, 1.0), (0, 0.0), (0, 0.0)]), ("b", 3, [(1, 1 / 3), (1, 1 / 3), (1, 1 / 3)])]
    assert found.inserted == [0, 1]


def test_changes_are_counted_and_those_that_changed_most_are_shown():
    before = make_predictions([("a b c", "a"), ("a b", "a b"), ("a", "a"), ("d", "x")])
    now = make_predictions([("a b c", "a b c"), ("a b", "a"), ("a", "a"), ("e", "e"), ("new", "new")])
    found = compare_predictions({record["utterance_id"]: record for record in before}, now)
    # Utterance 3 has another reference, 4 is new: they do not count.
    assert (found.num_better, found.num_worse, found.num_same, found.num_apart) == (1, 1, 1, 2)
    assert found.test.difference == pytest.approx((1 - 2) / 6)
    (better,) = found.better
    assert (better.utterance_id, better.errors_before, better.errors_now) == ("u000", 2, 0)
    assert [pair.kind for pair in better.pairs_before] == ["hit", "deleted", "deleted"]
    assert [one.utterance_id for one in found.worse] == ["u001"]


def test_the_set_compares_with_the_evaluation_before_it():
    now = make_predictions([("a b", "a"), ("a", "b")])
    found = build(now, previous=(40, {"u000": {"utterance_id": "u000", "hypothesis": "a b", "errors": 0}}))
    assert found.previous_step == 40
    assert [one.change for one in found.utterances] == ["worse", "new"]
    assert (found.change.num_worse, found.change.num_apart) == (1, 1)


def test_an_empty_set_and_one_utterance_are_sets():
    empty = build([])
    assert (empty.num_utterances, empty.interval, empty.matrix, empty.lengths) == (0, None, None, [])
    one = build(make_predictions([("", "")]))
    assert (one.num_right, one.interval, one.matrix, one.confusions) == (1, None, None, [])
    assert one.utterances == []


def test_the_worst_utterances_end_where_errors_end():
    found = build(make_predictions([("a", "a"), ("a b", "x y"), ("b", "b"), ("b", "c")]), max_utterances=100)
    assert [one.prediction["utterance_id"] for one in found.utterances] == ["u001", "u003"]
    assert found.num_with_errors == 2


def test_the_character_error_rate_has_an_interval_of_its_own():
    found = build(make_predictions([("abcd", "abcx"), ("abcd", "abcd")] * 20))
    assert found.char_rate == 1 / 8
    assert 0 < found.char_interval.low < 1 / 8 < found.char_interval.high < 0.25
    assert build([]).char_rate == 0.0


def test_many_speakers_are_the_pieces():
    speakers = [f"s{number}" for number in range(MIN_SPEAKERS)]
    found = build(make_predictions([("a b", "a")] * MIN_SPEAKERS, speakers=speakers))
    assert (found.num_pieces, found.by_speaker) == (MIN_SPEAKERS, True)


def sliced(texts, *fields):
    records = make_predictions(texts)
    for record in records:
        if found := fields[int(record["utterance_id"][1:])]:
            record["slices"] = found
    return records


def test_each_field_of_the_manifest_is_a_slice_with_its_rates():
    texts = [("ab cd", "ab xd"), ("ab", "ab"), ("ab", "ab"), ("ef", "")]
    accents = [{"accent": "irish", "year": "1"}, {"accent": "scottish", "year": "1"}, {"accent": "irish"}, None]
    found = build(sliced(texts, *accents))
    assert list(found.slices) == ["accent", "year"]
    assert [
        (one.name, one.num_utterances, one.words.num_reference, one.words.rate, one.char_rate)
        for one in found.slices["accent"]
    ] == [("", 1, 1, 1.0, 1.0), ("irish", 2, 3, 1 / 3, 1 / 7), ("scottish", 1, 1, 0.0, 0.0)]
    assert [one.name for one in found.slices["year"]] == ["", "1"]


@pytest.mark.parametrize("values", [["same"] * 60, [str(number) for number in range(60)], [None] * 60])
def test_a_field_with_one_value_or_with_too_many_is_no_slice(values):
    texts = [("a", "a")] * 60
    assert build(sliced(texts, *({"accent": value} if value else None for value in values))).slices == {}
