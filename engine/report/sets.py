"""Builds the report of one evaluated set: error rates, groups, confusions, worst utterances and changes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.evaluation.best_metric import AUTO, choose_metric
from engine.evaluation.metrics import ErrorCounts, count_char_errors
from engine.report.alignment import Pair, align_words, count_confusions
from engine.report.confusions import Matrix, WordConfusion, count_characters, rank_words
from engine.report.statistics import Interval, PairedTest, compare_errors, pieces_of, rate_interval

_MAX_ALIGNED = 10_000  # utterances with errors whose confusions are counted, worst first
_MAX_SPEAKERS = 200
_MAX_SLICES = 51  # values of a field of the manifest, and none
_MAX_CHANGED = 20  # utterances shown each way
_MAX_LENGTH_GROUPS = 6
_MIN_IN_GROUP = 5

Prediction = Mapping[str, Any]
"""A line of predictions.jsonl."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Utterances of a set that share a property.

    Attributes:
        name: The shared property, such as a speaker or a range of lengths.
        num_utterances: Number of utterances in the group.
        words: Word errors.
        interval: Confidence interval of the word error rate; None if it cannot be estimated.
        char_rate: Character error rate.
    """

    name: str
    num_utterances: int
    words: ErrorCounts
    interval: Interval | None
    char_rate: float


@dataclasses.dataclass(frozen=True)
class WorstUtterance:
    """One of the worst utterances.

    Attributes:
        prediction: Line of predictions.jsonl.
        pairs: Aligned words.
        errors_before: Word errors at the previous evaluation; None if it did not have the utterance.
    """

    prediction: Prediction
    pairs: list[Pair]
    errors_before: int | None

    @property
    def change(self) -> str:
        """Returns worse, better or same as at the previous evaluation, or new."""
        if self.errors_before is None:
            return "new"
        return _direction(self.errors_before, self.prediction["errors"])


@dataclasses.dataclass(frozen=True)
class Changed:
    """An utterance whose number of errors differs between two systems or checkpoints."""

    utterance_id: str
    errors_before: int
    errors_now: int
    pairs_before: list[Pair]
    pairs_now: list[Pair]


@dataclasses.dataclass(frozen=True)
class Change:
    """Comparison of two transcriptions of the same utterances.

    Attributes:
        test: Significance test of the difference in the error rate.
        num_better, num_worse, num_same: Utterances with fewer, more, as many errors in the second.
        better, worse: The utterances that differ most.
        num_apart: Utterances that only one has, or whose reference differs; they are excluded.
    """

    test: PairedTest
    num_better: int
    num_worse: int
    num_same: int
    better: list[Changed]
    worse: list[Changed]
    num_apart: int


@dataclasses.dataclass(frozen=True)
class SetReport:
    """Everything that the page shows of one set.

    Attributes:
        name: Name of the set in metrics.jsonl.
        num_utterances, num_right: All utterances, and those without a wrong word.
        words: Word errors.
        interval: Confidence interval of the word error rate.
        char_rate: Character error rate.
        char_interval: Confidence interval of the character error rate.
        num_pieces, by_speaker: Independent pieces that the intervals resample, and whether these are speakers.
        length_unit: Unit of `lengths`, s or words.
        lengths: Groups of utterances of similar length, short ones first.
        speakers: One group per speaker, worst first; [] if the corpus names none.
        num_speakers: Number of all speakers, including those beyond the limit of `speakers`.
        matrix: Confusion matrix of characters; None without errors.
        confusions: Word confusions, most frequent first.
        num_aligned, num_with_errors: Utterances whose confusions are counted, and all with errors.
        utterances: The worst utterances; all of them have errors.
        previous_step: Update of the previous evaluation; None without one.
        change: Change since the previous evaluation; None without one.
        metric: The error rate that decides and that `change` is about, "wer" or "cer".
        slices: Field of the manifest -> one group for each of its values, worst first.
    """

    name: str
    num_utterances: int
    num_right: int
    words: ErrorCounts
    interval: Interval | None
    char_rate: float
    char_interval: Interval | None
    num_pieces: int
    by_speaker: bool
    length_unit: str
    lengths: list[Group]
    speakers: list[Group]
    num_speakers: int
    matrix: Matrix | None
    confusions: list[WordConfusion]
    num_aligned: int
    num_with_errors: int
    utterances: list[WorstUtterance]
    previous_step: int | None
    change: Change | None
    metric: str = "wer"
    slices: Mapping[str, list[Group]] = dataclasses.field(default_factory=dict)


def build_set(
    *,
    name: str,
    predictions: Sequence[Prediction],
    previous: tuple[int, Mapping[str, Prediction]] | None,
    max_utterances: int,
    metric: object = AUTO,
) -> SetReport:
    """Builds the report of one set from its predictions.

    Args:
        name: Name of the set in metrics.jsonl.
        predictions: Lines of predictions.jsonl, worst first; `speaker_id` and `duration_secs` may be missing.
        previous: Update of the previous evaluation, and its lines by utterance; None without one.
        max_utterances: Limit of the listed utterances.
        metric: Value of config.eval.best_metric.
    """
    references = [record["reference"] for record in predictions]
    metric = choose_metric(metric, references)
    pieces, by_speaker = pieces_of([speaker_of(record) for record in predictions])
    wrong = [record for record in predictions if record["errors"] or record["char_errors"]]
    found = count_confusions((record["reference"], record["hypothesis"]) for record in wrong[:_MAX_ALIGNED])
    previous_step, before = previous or (None, {})
    speaker_groups = _by_speaker(predictions)
    length_unit, lengths = _by_length(predictions)
    return SetReport(
        name=name,
        num_utterances=len(predictions),
        num_right=sum(not record["errors"] for record in predictions),
        words=count_words(predictions),
        interval=interval_of(predictions, "wer"),
        char_rate=char_rate(predictions),
        char_interval=interval_of(predictions, "cer"),
        num_pieces=len(set(pieces.tolist())),
        by_speaker=by_speaker,
        length_unit=length_unit,
        lengths=lengths,
        speakers=speaker_groups[:_MAX_SPEAKERS],
        num_speakers=len(speaker_groups),
        matrix=count_characters(found, references),
        confusions=rank_words(found, references),
        num_aligned=found.num_utterances,
        num_with_errors=len(wrong),
        utterances=[_describe_utterance(record, before) for record in wrong[:max_utterances]],
        previous_step=previous_step,
        change=compare_predictions(before, predictions, metric=metric) if previous else None,
        metric=metric,
        slices={name: _worst_first(predictions, slice_of(name)) for name in slice_names(predictions)},
    )


def slice_names(predictions: Iterable[Prediction]) -> list[str]:
    """Returns the fields of the manifest that divide some lines into 2 to 50 groups, in alphabetical order."""
    records = list(predictions)
    names = sorted({name for record in records for name in record.get("slices") or {}})
    return [name for name in names if 2 <= len(set(map(slice_of(name), records))) <= _MAX_SLICES]


def slice_of(name: str) -> Callable[[Prediction], str]:
    """Returns a function from a line to the value of a field of its manifest; "" if it has none."""
    return lambda record: (record.get("slices") or {}).get(name, "")


def _worst_first(predictions: Sequence[Prediction], key: Callable[[Prediction], str]) -> list[Group]:
    return sorted(_group(predictions, key), key=lambda group: (-group.words.rate, group.name))


def _by_speaker(predictions: Sequence[Prediction]) -> list[Group]:
    """Groups utterances by speaker, worst first; [] if no utterance has one."""
    if not any(speaker_of(record) for record in predictions):
        return []
    return _worst_first(predictions, speaker_of)


def _describe_utterance(record: Prediction, before: Mapping[str, Prediction]) -> WorstUtterance:
    earlier = before.get(record["utterance_id"])
    return WorstUtterance(
        prediction=record,
        pairs=align_words(record["reference"], record["hypothesis"]),
        errors_before=None if earlier is None else earlier["errors"],
    )


def count_words(predictions: Iterable[Prediction]) -> ErrorCounts:
    """Returns the sum of the word errors of some lines."""
    return sum((_counts(record) for record in predictions), ErrorCounts())


def char_rate(predictions: Sequence[Prediction]) -> float:
    """Returns the character error rate of some lines; with no reference character, each error counts as one."""
    errors, lengths = _errors_and_totals(predictions, "cer")
    return sum(errors) / max(sum(lengths), 1)


def interval_of(predictions: Sequence[Prediction], metric: str) -> Interval | None:
    """Returns the confidence interval of the error rate of some lines, "wer" or "cer"."""
    return rate_interval(*_errors_and_totals(predictions, metric), [speaker_of(record) for record in predictions])


def _errors_and_totals(predictions: Sequence[Prediction], metric: str) -> tuple[list[int], list[int]]:
    """Returns the errors of each line and its reference tokens: words for "wer", characters for "cer"."""
    count, total = ("errors", "num_words") if metric == "wer" else ("char_errors", "num_chars")
    return [record[count] for record in predictions], [record[total] for record in predictions]


def compare_predictions(
    before: Mapping[str, Prediction], predictions: Iterable[Prediction], *, metric: str = "wer"
) -> Change:
    """Compares two transcriptions utterance by utterance.

    Args:
        before: Lines of the first transcription by utterance; an utterance whose `reference` differs is excluded.
        predictions: Lines of the second transcription.
        metric: The errors to compare: "wer" for words, "cer" for characters.
    """
    now = {record["utterance_id"]: record for record in predictions}
    common = sorted(
        name
        for name in now.keys() & before.keys()
        if before[name].get("reference", now[name]["reference"]) == now[name]["reference"]
    )
    errors = [_count_earlier(before[name], now[name]["reference"], metric) for name in common]
    errors_now, totals = _errors_and_totals([now[name] for name in common], metric)
    test = compare_errors(errors, errors_now, totals, [speaker_of(now[name]) for name in common])
    changes = sorted(zip(common, errors, errors_now, strict=True), key=lambda one: (-abs(one[2] - one[1]), one[0]))
    directions = Counter(_direction(one[1], one[2]) for one in changes)

    def most(direction: str) -> list[Changed]:
        chosen = [one for one in changes if _direction(one[1], one[2]) == direction][:_MAX_CHANGED]
        return [
            Changed(
                utterance_id=utterance_id,
                errors_before=old,
                errors_now=new,
                pairs_before=align_words(now[utterance_id]["reference"], before[utterance_id]["hypothesis"]),
                pairs_now=align_words(now[utterance_id]["reference"], now[utterance_id]["hypothesis"]),
            )
            for utterance_id, old, new in chosen
        ]

    return Change(
        test=test,
        num_better=directions["better"],
        num_worse=directions["worse"],
        num_same=directions["same"],
        better=most("better"),
        worse=most("worse"),
        num_apart=len(now.keys() | before.keys()) - len(common),
    )


def _count_earlier(record: Prediction, reference: str, metric: str) -> int:
    """Returns the errors of a line of the first transcription, in which the history has no errors of characters."""
    if metric == "cer" and "char_errors" not in record:
        return count_char_errors(reference, record["hypothesis"]).num_errors
    return record["errors" if metric == "wer" else "char_errors"]


def speaker_of(record: Prediction) -> str:
    """Returns the speaker of a line; "" if unknown."""
    return record.get("speaker_id") or ""


def _direction(before: int, now: int) -> str:
    return "worse" if now > before else "better" if now < before else "same"


def _counts(record: Prediction) -> ErrorCounts:
    wrong = record["substitutions"] + record["deletions"]
    return ErrorCounts(
        hits=record["num_words"] - wrong,
        substitutions=record["substitutions"],
        deletions=record["deletions"],
        insertions=record["insertions"],
    )


def _group(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> list[Group]:
    members: dict[str, list[Prediction]] = {}
    for record in predictions:
        members.setdefault(key(record), []).append(record)
    return [
        Group(
            name=name,
            num_utterances=len(records),
            words=count_words(records),
            interval=interval_of(records, "wer"),
            char_rate=char_rate(records),
        )
        for name, records in members.items()
    ]


def _by_length(predictions: Sequence[Prediction]) -> tuple[str, list[Group]]:
    """Groups utterances of similar length, about as many per group: by seconds if all are known, else by words."""
    if not predictions:
        return "s", []
    by_secs = all(record.get("duration_secs") is not None for record in predictions)
    unit, name, digits = ("s", "duration_secs", 1) if by_secs else ("words", "num_words", 0)
    lengths = np.array([record[name] for record in predictions], dtype=float)
    num_groups = min(_MAX_LENGTH_GROUPS, max(1, len(predictions) // _MIN_IN_GROUP))
    cuts = np.unique(np.quantile(lengths, np.arange(1, num_groups) / num_groups).round(digits))
    numbers = np.searchsorted(cuts, lengths, side="right")
    names = {number: _range_name(lengths[numbers == number], digits) for number in set(numbers.tolist())}
    number_of = {record["utterance_id"]: number for record, number in zip(predictions, numbers.tolist(), strict=True)}
    groups = _group(
        sorted(predictions, key=lambda record: number_of[record["utterance_id"]]),
        lambda record: names[number_of[record["utterance_id"]]],
    )
    return unit, groups


def _range_name(lengths: np.ndarray, digits: int) -> str:
    shortest, longest = (f"{end:.{digits}f}" for end in (lengths.min(), lengths.max()))
    return shortest if shortest == longest else f"{shortest} to {longest}"
