"""Reads metrics.jsonl and predictions.jsonl and checks the fields that their readers rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from common import storage
from common.json_files import MalformedFileError, describe, field, is_kind
from engine.common import files

# Fields that reports, early stopping and comparisons compute with; other fields are not checked.
_METRICS = ("audio_secs_per_sec", "cer", "learning_rate", "loss", "num_utterances", "num_words", "wer")
_COUNTS = ("substitutions", "deletions", "insertions", "errors", "num_words", "char_errors", "num_chars")
_MAX_COUNT = 10**9  # of one utterance; sums of such counts fit into 64 bits
TRAIN_SPLIT = "train"  # of the lines about training in metrics.jsonl
_ADVICE = "repair or remove the line"


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads metrics.jsonl; every line has a `step` and a `split`, and its metrics are numbers or None.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A line is malformed; names the first one.
    """
    records = []
    for where, record in _lines(path):
        _check_count(record, "step", where)
        _check(record, "split", str, where)
        for name in _METRICS:
            if record.get(name) is not None:
                _check(record, name, float, where)
        records.append(record)
    return records


def read_metrics_if_any(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns what `read_metrics` does; [] if there is no such file."""
    return read_metrics(path) if storage.is_file(path) else []


def read_predictions(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads predictions.jsonl; every line has its texts and consistent counts, and ids are unique.

    `speaker_id`, `duration_secs` and `slices`, which older versions did not write, may be absent or None.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A line is malformed; names the first one.
    """
    records = []
    known: set[str] = set()
    for where, record in _lines(path):
        for name in ("reference", "hypothesis"):
            _check(record, name, str, where)
        for name in _COUNTS:
            _check_count(record, name, where)
        if record.get("speaker_id") is not None:
            _check(record, "speaker_id", str, where)
        if record.get("duration_secs") is not None:
            _check(record, "duration_secs", float, where)
        if record.get("slices") is not None:
            _check(record, "slices", dict, where)
            for name in record["slices"]:
                _check(record["slices"], name, str, f"{where}: slices")
        wrong = record["substitutions"] + record["deletions"]
        if wrong > record["num_words"] or wrong + record["insertions"] != record["errors"]:
            raise ValueError(f"{where}: the word counts do not add up; {_ADVICE}")
        _check_id(record, known, where)
        records.append(record)
    return records


def read_heard(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads a file of `engine.report.history`: id, hypothesis and errors of each utterance.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A line is malformed; names the first one.
    """
    records = []
    known: set[str] = set()
    for where, record in _lines(path):
        _check(record, "hypothesis", str, where)
        _check_count(record, "errors", where)
        _check_id(record, known, where)
        records.append(record)
    return records


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the object of each line."""
    return ((f"{os.fspath(path)}, line {number}", record) for number, record in files.read_jsonl_lines(path))


def _check(record: Mapping[str, Any], name: str, kind: type, where: str) -> None:
    try:
        field(record, name, kind, where)
    except MalformedFileError as error:
        raise ValueError(f"{error}; {_ADVICE}") from error


def _check_count(record: Mapping[str, Any], name: str, where: str) -> None:
    value = record.get(name)
    if value is None or not (is_kind(value, int) and 0 <= value <= _MAX_COUNT):
        shown = "absent" if name not in record else describe(value)
        raise ValueError(f"{where}: {name!r} is {shown}, not a whole number from 0 to {_MAX_COUNT}; {_ADVICE}")


def _check_id(record: Mapping[str, Any], known: set[str], where: str) -> None:
    _check(record, "utterance_id", str, where)
    if record["utterance_id"] in known:
        raise ValueError(f"{where}: utterance {record['utterance_id'][:100]!r} occurs twice; {_ADVICE}")
    known.add(record["utterance_id"])
