"""The table of error rates."""

from __future__ import annotations

from engine.console.error_table import error_table


def test_table_has_a_row_a_set_with_rates_in_per_cent():
    figures = {
        "dev": {
            "num_utterances": 12, "num_words": 200, "wer": 0.055, "cer": 0.0123, "substitutions": 8, "deletions": 2,
            "insertions": 1,
        },
        "a-longer-name": {
            "num_utterances": 1, "num_words": 2, "wer": 1.5, "cer": 1.0, "substitutions": 2, "deletions": 0,
            "insertions": 1,
        },
    }  # fmt: skip
    head, rule, dev, other = error_table(figures).splitlines()
    assert head.split() == ["set", "utterances", "words", "WER", "%", "CER", "%", "substituted", "deleted", "inserted"]
    assert set(rule) == {"-"}
    assert dev.split() == ["dev", "12", "200", "5.50", "1.23", "8", "2", "1"]
    assert other.split() == ["a-longer-name", "1", "2", "150.00", "100.00", "2", "0", "1"]
    assert len({len(row) for row in (head, rule, dev, other)}) == 1


def test_a_line_of_metrics_that_lacks_values_has_dashes():
    *_, row = error_table({"dev": {"num_words": 2, "wer": None}}).splitlines()
    assert row.split() == ["dev", "-", "2", "-", "-", "-", "-", "-"]
