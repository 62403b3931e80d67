"""Findings: their lines, their order, their severities."""

from __future__ import annotations

from data.doctor.findings import (
    CHECKS,
    Finding,
    Severity,
    allow,
    count,
    find,
    merge,
    sort,
    without_explained,
)


def test_a_line_says_where_how_many_the_first_and_what_to_do() -> None:
    (finding,) = find("empty_text", "train", {f"u{i}": "" if i else "'?'" for i in range(1005)})
    assert finding.line() == (
        "train: 1,005: transcripts without text: u0 ('?'), u1, u2 and 1,002 more. "
        "To do: add the text, or remove the utterances"
    )
    assert finding.severity == Severity.ERROR


def test_nothing_found_is_no_finding() -> None:
    assert find("empty_text", "train", {}) == []


def test_errors_come_first_then_warnings_then_notes() -> None:
    names = ("sampled", "clipped_audio", "audio_leak", "mixed_rates", "empty_text")
    found = sort(item for name in names for item in find(name, "train", {"a": ""}))
    assert [item.code for item in found] == [
        "empty_text", "audio_leak", "mixed_rates", "clipped_audio", "sampled",
    ]  # fmt: skip
    assert [count(found, severity) for severity in Severity] == [2, 2, 1]


def test_what_a_config_allows_becomes_a_note() -> None:
    found = [*find("id_leak", "eval a", {"a": ""}), *find("empty_text", "eval a", {"b": ""})]
    assert [item.severity for item in allow(found, ["id_leak"])] == [Severity.NOTE, Severity.ERROR]


def test_what_is_found_twice_is_one_finding() -> None:
    found = merge(
        [
            *find("empty_text", "train", {"a": ""}),
            *find("empty_text", "eval dev", {"c": ""}),
            *find("empty_text", "train", {"b": ""}),
        ]
    )
    assert [(item.where, list(item.details)) for item in found] == [("train", ["a", "b"]), ("eval dev", ["c"])]


def test_a_problem_with_a_known_cause_is_not_told_twice() -> None:
    found = [
        *find("speaking_rate", "train", {"a": "", "b": ""}),
        *find("speaking_rate", "eval dev", {"a": ""}),
        *find("mostly_silent", "train", {"a": ""}),
    ]
    assert [(item.code, item.where, list(item.details)) for item in without_explained(found)] == [
        ("speaking_rate", "train", ["b"]),
        ("speaking_rate", "eval dev", ["a"]),
        ("mostly_silent", "train", ["a"]),
    ]


def test_every_check_says_what_is_wrong_and_what_to_do() -> None:
    for code, check in CHECKS.items():
        assert isinstance(Finding(code, "train", {}, check.severity, check.advice).check.severity, Severity)
        assert check.title and check.advice
        assert not check.title.endswith(".") and not check.advice.endswith(".")
