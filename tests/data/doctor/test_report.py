"""What the doctor says: histograms, lines, JSON."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from data.doctor.findings import find, sort
from data.doctor.report import (
    DoctorReport,
    Histogram,
    Memory,
    PlanStatistics,
    SetStatistics,
    SetWords,
    Shape,
    TrainingTime,
    verdict,
)


def test_a_histogram_counts_every_finite_value_once_and_ends_at_round_numbers() -> None:
    values = np.array([0.0, 1.0, 7.3, np.nan, 15.4])
    histogram = Histogram.of("duration, s", values, low=0.0)
    assert (sum(histogram.counts), histogram.edges[0], histogram.edges[-1]) == (4, 0.0, 16.0)
    assert histogram.median == pytest.approx(4.15)
    clipped = Histogram.of("level", values, low=0.0, high=10.0)
    assert clipped.counts[-1] == 1 and sum(clipped.counts) == 4


def test_a_histogram_of_nothing_or_of_one_value_is_drawable() -> None:
    assert Histogram.of("x", np.array([np.nan])).counts == [0]
    assert sum(Histogram.of("x", np.array([0.0, 0.0]), low=0.0).counts) == 2


def make_report() -> DoctorReport:
    findings = [*find("too_long", "train", {"b": "31 s"}), *find("empty_text", "train", {"a": ""})]
    histogram = Histogram.of("duration, s", np.array([1.0, 2.0]), low=0.0)
    return DoctorReport(
        findings=sort(findings),
        sets=[SetStatistics("train", "jsonl m.jsonl", 2, 1.5, 0, 10, 50, 1, 2, [histogram])],
        plan=PlanStatistics(7, 14, 0.125, [Shape(2.0, 99, 7, 14, 0.125)]),
        vocabulary=None,
        memory=[Memory("training", 1, 2.0, 3 * 2**30, 2**31), Memory("evaluation a", 2, 2.0, None, None)],
    )


def test_the_terminal_gets_sets_plan_memory_findings_and_verdict() -> None:
    lines = make_report().lines()
    assert lines[0] == ("train (jsonl m.jsonl): 2 utterances, 1.50 h, speakers unknown, 10 words; 2 listened to")
    assert lines[1] == "plan: 7 updates an epoch, 12.5 % padding; shapes 2.0 s x 7"
    assert lines[2] == "memory, training: 1 row of 2.0 s: about 3.0 GiB of 2.0 GiB"
    assert lines[3] == "memory, evaluation a: 2 rows of 2.0 s: not predicted for this model"
    assert lines[4].startswith("ERROR   train: 1: transcripts without text: a. To do: ")
    assert lines[5].startswith("WARNING train: 1: longer than data.max_duration_secs")
    assert lines[6:] == ["1 error, 1 warning"]


def test_the_terminal_gets_the_predicted_time_and_the_words_that_training_never_has() -> None:
    words = SetWords("eval a", 40, 20, [("the", 9)], 10, 7, [(letter, 1) for letter in "abcdefg"])
    time = TrainingTime(1_600, 300.0, 420.0, "from 79 measurements")
    found = dataclasses.replace(make_report(), words=[SetWords("train", 5, 4, []), words], time=time)
    assert found.lines()[4:6] == [
        "time, 1,600 updates: 5 min to 7 min, from 79 measurements",
        "words, eval a: 10 of 40 (25.0 %) are never in training: a, b, c, d, e, ...",
    ]
    assert TrainingTime(2, 10.0, 10.2, "x").describe() == "2 updates: about 10 s, x"
    fields = json.loads(json.dumps(found.to_json()))
    assert fields["words"][1]["unseen"][0] == ["a", 1] and fields["time"]["high_secs"] == 420.0


def test_the_audio_is_no_part_of_the_json() -> None:
    found = dataclasses.replace(make_report(), clips={("train", "a"): b"fLaC"})
    assert "clips" not in found.to_json()


def test_json_holds_every_finding_and_statistic() -> None:
    fields = json.loads(json.dumps(make_report().to_json(title="a run")))
    assert (fields["title"], fields["num_errors"], fields["num_warnings"]) == ("a run", 1, 1)
    assert fields["findings"][1]["utterances"] == [{"id": "b", "detail": "31 s"}]
    assert fields["sets"][0]["histograms"][0]["title"] == "duration, s"
    assert fields["plan"]["shapes"][0]["num_frames"] == 99
    assert fields["memory"][0]["predicted_bytes"] == 3 * 2**30


def test_only_what_is_predicted_can_be_too_much() -> None:
    first, second = make_report().memory
    assert first.is_too_much and not second.is_too_much


def test_the_verdict_minds_its_plurals() -> None:
    assert [verdict(0, 0), verdict(1, 2)] == ["0 errors, 0 warnings", "1 error, 2 warnings"]
