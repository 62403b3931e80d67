"""Error counts against hand counts and an independent edit distance, and their sum over a split."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation.metrics import ErrorCounts, TranscriptionScore, count_char_errors, count_word_errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("THE CAT SAT", "THE CAT SAT", (3, 0, 0, 0)),
        ("THE CAT SAT", "THE BAT SAT DOWN", (2, 1, 0, 1)),
        ("THE CAT SAT", "CAT", (1, 0, 2, 0)),
        ("THE CAT", "", (0, 0, 2, 0)),
        ("", "A B", (0, 0, 0, 2)),
        ("", "", (0, 0, 0, 0)),
        ("  THE   CAT ", "THE\tCAT\n", (2, 0, 0, 0)),
    ],
)
def test_word_counts(reference, hypothesis, expected):
    counts = count_word_errors(reference, hypothesis)
    assert (counts.hits, counts.substitutions, counts.deletions, counts.insertions) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("A CAT", "ACAT", (4, 0, 1, 0)),  # The space counts.
        ("AB", "A B", (2, 0, 0, 1)),
        ("CAT", "BATS", (2, 1, 0, 1)),
        ("", "A B", (0, 0, 0, 3)),
        ("A B", "", (0, 0, 3, 0)),
        ("", "", (0, 0, 0, 0)),
        ("A  B ", " A B", (3, 0, 0, 0)),
    ],
)
def test_character_counts(reference, hypothesis, expected):
    counts = count_char_errors(reference, hypothesis)
    assert (counts.hits, counts.substitutions, counts.deletions, counts.insertions) == expected


def _edit_distance(a, b):
    """Row by row, as in a textbook."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


_texts = st.lists(st.sampled_from(["A", "B", "CA", "AB"]), max_size=8).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(_texts, _texts)
def test_counts_agree_with_the_edit_distance_and_the_lengths(reference, hypothesis):
    for counts, a, b in (
        (count_word_errors(reference, hypothesis), reference.split(), hypothesis.split()),
        (count_char_errors(reference, hypothesis), reference, hypothesis),
    ):
        assert counts.num_errors == _edit_distance(a, b)
        assert counts.num_reference == len(a)
        assert counts.hits + counts.substitutions + counts.insertions == len(b)


def test_rate_is_errors_per_reference_token():
    assert ErrorCounts(hits=6, substitutions=2, deletions=2, insertions=1).rate == 0.5
    assert ErrorCounts(hits=1, insertions=3).rate == 3.0


def test_rate_without_reference_is_finite():
    assert ErrorCounts().rate == 0.0
    assert ErrorCounts(insertions=2).rate == 2.0


def _score(*rows):
    score = TranscriptionScore()
    for row in rows:
        score.add(*row)
    return score


_ROWS = [
    ("u1", "A B C D", "A B C D"),
    ("u2", "A B", "X"),
    ("u3", "", "A"),
    ("u4", "C D E", "C E F G"),
]


def test_summary_is_over_all_words_not_a_mean_of_rates():
    summary = _score(*_ROWS).summary()
    # u2: one substitution, one deletion; u3: an insertion; u4: two substitutions, an insertion.
    assert summary["hits"] == 4 + 0 + 0 + 1
    assert (summary["substitutions"], summary["deletions"], summary["insertions"]) == (3, 1, 2)
    assert summary["num_words"] == 9
    assert summary["num_utterances"] == 4
    assert summary["wer"] == 6 / 9
    assert summary["num_chars"] == 7 + 3 + 0 + 5
    # "A B" to "X" costs 3, "" to "A" 1, "C D E" to "C E F G" 4.
    errors = sum(summary[f"char_{k}"] for k in ("substitutions", "deletions", "insertions"))
    assert errors == 3 + 1 + 4
    assert summary["cer"] == errors / 15
    assert summary["char_hits"] + summary["char_substitutions"] + summary["char_deletions"] == 15


def test_empty_split_has_zero_rates():
    summary = TranscriptionScore().summary()
    assert (summary["wer"], summary["cer"], summary["num_utterances"]) == (0.0, 0.0, 0)


def test_merge_of_parts_in_any_order_equals_the_whole():
    whole = _score(*_ROWS)
    parts = [_score(_ROWS[3]), TranscriptionScore(), _score(_ROWS[1], _ROWS[0]), _score(_ROWS[2])]
    merged = TranscriptionScore()
    for part in parts:
        merged.merge(part)
    assert len(merged) == 4
    assert merged.summary() == whole.summary()
    assert merged.predictions() == whole.predictions()


def test_utterance_given_twice_is_refused():
    score = _score(*_ROWS)
    with pytest.raises(ValueError, match="'u2' is scored twice"):
        score.add("u2", "A B", "A B")
    other = _score(("u9", "A", "A"), ("u3", "", ""))
    with pytest.raises(ValueError, match="'u3' is scored twice"):
        score.merge(other)
    assert score.summary() == _score(*_ROWS).summary()  # Nothing was merged.


def test_predictions_are_worst_first():
    records = _score(*_ROWS, ("u0", "A", "B")).predictions()
    # u4 has 3 word errors, u2 has 2; u0, u3 one each, with one character error: by id.
    assert [record["utterance_id"] for record in records] == ["u4", "u2", "u0", "u3", "u1"]
    assert records[0] == {
        "utterance_id": "u4",
        "reference": "C D E",
        "hypothesis": "C E F G",
        "errors": 3,
        "substitutions": 2,
        "deletions": 0,
        "insertions": 1,
        "num_words": 3,
        "char_errors": 4,
        "num_chars": 5,
    }


def test_samples_are_the_first_ids_whatever_their_errors():
    score = _score(*_ROWS)
    assert [record["utterance_id"] for record in score.samples(2)] == ["u1", "u2"]
    assert len(score.samples(99)) == 4


def test_module_does_not_load_tensorflow():
    code = "import sys, engine.evaluation.metrics; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
