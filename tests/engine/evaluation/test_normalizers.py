"""A second way to write texts for scoring: its entries, its names, its counts."""

from __future__ import annotations

import pytest

from engine.evaluation.metrics import TranscriptionScore
from engine.evaluation.normalizers import normalized_name, read_normalizers, rescore


def test_entries_are_names_with_styles():
    entries = ("plain=unicode+language=tr", "raw=none")
    assert read_normalizers(entries) == {"plain": "unicode+language=tr", "raw": "none"}
    assert read_normalizers(()) == {}
    assert normalized_name("dev", "plain") == "dev-plain"


@pytest.mark.parametrize("entry", ["unicode", "=unicode", "a=", "a-b=none", "a/b=none", "unicode+language=tr"])
def test_an_entry_of_another_form_is_shown(entry):
    with pytest.raises(ValueError, match=r"eval\.normalizers='.*': wanted NAME=STYLE, such as plain="):
        read_normalizers([entry])


def test_a_name_given_twice_is_named():
    with pytest.raises(ValueError, match="the name a is given twice"):
        read_normalizers(["a=none", "a=unicode"])


def test_both_texts_are_written_anew_and_counted_anew():
    score = TranscriptionScore()
    score.add("u1", "A B", "A C")
    score.add("u2", "D", "D")
    found = rescore(score, {"u1": "a, b!", "u2": "d"}, "none", lambda text, style: text.lower().replace("c", "b!"))
    assert found.summary()["wer"] == pytest.approx(1 / 3)
    assert {one["utterance_id"]: (one["reference"], one["hypothesis"]) for one in found.predictions()} == {
        "u1": ("a, b!", "a b!"),
        "u2": ("d", "d"),
    }
    assert score.summary()["wer"] == pytest.approx(1 / 3) and len(score) == 2
