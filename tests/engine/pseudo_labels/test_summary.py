"""The table at the end of a labelling."""

from __future__ import annotations

from engine.pseudo_labels.summary import Summary


def label(reason="", secs=1800.0, confidence=0.95, **more):
    return {"reason": reason, "duration": secs, "confidence": confidence, **more}


def test_counts_and_hours_of_what_is_kept_and_left_out():
    summary = Summary()
    for fields in (label(), label(confidence=0.85), label("too_slow", 3600.0), {"reason": "unreadable"}):
        summary.add(fields)
    assert (summary.num_kept, summary.num_unreadable) == (2, 1)
    assert list(summary.lines()) == [
        "                   labels      hours",
        "kept                    2       1.00",
        "too_slow                1       1.00",
        "unreadable              1       0.00",
        "mean confidence of what is kept: 0.900",
    ]


def test_transcripts_show_what_a_confidence_is_worth():
    summary = Summary()
    summary.add(label(confidence=0.97, reference_errors=1, reference_chars=100))
    summary.add(label(confidence=0.91, reference_errors=9, reference_chars=100))
    summary.add(label("low_confidence", confidence=0.3, reference_errors=80, reference_chars=100))
    lines = list(summary.lines())
    assert lines[0] == "                   labels      hours  CER %"
    assert lines[1:3] == [
        "kept                    2       1.00   5.00",
        "low_confidence          1       0.50  80.00",
    ]
    rows = [line.split() for line in lines[lines.index("min_confidence      hours  share  CER %") + 1 :]]
    assert rows[0] == ["0.00", "1.50", "100", "%", "30.00"]
    assert rows[1] == ["0.50", "1.00", "67", "%", "5.00"]
    assert rows[-1] == ["0.95", "0.50", "33", "%", "1.00"]


def test_nothing_kept_is_no_division_by_zero():
    summary = Summary()
    summary.add(label("no_text", confidence=0.0))
    assert len(list(summary.lines())) == 3
