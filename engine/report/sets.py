"""One evaluated set as its part of the page: figures, groups, confusions, worst utterances, what has changed."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.evaluation.metrics import ErrorCounts
from engine.report.alignment import SPACE, Confusions, Pair, align_words, count_confusions
from engine.report.statistics import Interval, PairedTest, compare_errors, pieces_of, rate_interval

_MAX_ALIGNED = 10_000  # utterances with errors whose confusions are counted, the worst first
_MAX_CHARACTERS = 24  # rows of the matrix
_MAX_WORDS = 100  # rows of the table of words
_MAX_SPEAKERS = 200
_MAX_CHANGED = 20  # utterances shown each way
_MAX_LENGTH_GROUPS = 6
_MIN_IN_GROUP = 5

Prediction = Mapping[str, Any]
"""A line of predictions.jsonl."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Some utterances of a set.

    Attributes:
        name: What they have in common.
        num_utterances: Of these.
        words: Their errors.
        interval: Of the error rate; None where it cannot be told.
    """

    name: str
    num_utterances: int
    words: ErrorCounts
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One of the worst utterances.

    Attributes:
        prediction: Its line.
        places: Its words, aligned.
        errors_before: At the evaluation before; None where it was not there.
    """

    prediction: Prediction
    places: list[Pair]
    errors_before: int | None

    @property
    def change(self) -> str:
        """worse, better, same, or new where nothing is known of before."""
        if self.errors_before is None:
            return "new"
        return _direction(self.errors_before, self.prediction["errors"])


@dataclasses.dataclass(frozen=True)
class Changed:
    """An utterance whose number of errors differs between two systems or checkpoints."""

    utterance_id: str
    errors_before: int
    errors_now: int
    places_before: list[Pair]
    places_now: list[Pair]


@dataclasses.dataclass(frozen=True)
class Change:
    """Two transcriptions of the same utterances.

    Attributes:
        test: Of the difference.
        num_better, num_worse, num_same: Utterances with fewer, more, as many errors in the second.
        better, worse: The utterances that differ most.
        num_apart: Utterances that are in one alone, or whose reference differs; they do not count.
    """

    test: PairedTest
    num_better: int
    num_worse: int
    num_same: int
    better: list[Changed]
    worse: list[Changed]
    num_apart: int


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Which character is heard as which.

    Attributes:
        symbols: The most confused ones.
        rows: (symbol, times said, [(times, share of the times said) for each of `symbols` and for nothing]); the
            diagonal is what was heard right.
        inserted: Times that each of `symbols` was heard where nothing was said.
        most: Largest share off the diagonal.
    """

    symbols: list[str]
    rows: list[tuple[str, int, list[tuple[int, float]]]]
    inserted: list[int]
    most: float


@dataclasses.dataclass(frozen=True)
class WordConfusion:
    """A word taken for another, left out or put in."""

    kind: str
    reference: str
    hypothesis: str
    count: int
    num_said: int


@dataclasses.dataclass(frozen=True)
class SetReport:
    """What the page shows of one set.

    Attributes:
        name: Of the set's figures.
        figures: Its line of metrics.jsonl.
        num_utterances, num_right: All, and those without a wrong word.
        words: Its errors.
        interval: Of the word error rate.
        num_pieces, by_speaker: What the interval rests on.
        length_unit: What `lengths` go by.
        lengths: Groups of utterances of like length, short ones first.
        speakers: Groups of one speaker each, worst first; [] where nobody knows them.
        num_speakers: With those that are left out.
        matrix: Of characters; None without errors.
        confusions: Of words, most frequent first.
        num_aligned, num_with_errors: Utterances that the confusions are of, and could be of.
        utterances: The worst.
        previous_step: Update of the evaluation before; None without one.
        change: Since then.
    """

    name: str
    figures: Mapping[str, Any]
    num_utterances: int
    num_right: int
    words: ErrorCounts
    interval: Interval | None
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
    utterances: list[Utterance]
    previous_step: int | None
    change: Change | None


def build_set(
    *,
    name: str,
    predictions: Sequence[Prediction],
    figures: Mapping[str, Any],
    previous: tuple[int, Mapping[str, Prediction]] | None,
    max_utterances: int,
) -> SetReport:
    """Works one set out.

    Args:
        name: Of its figures.
        predictions: Lines of predictions.jsonl, worst first; `speaker_id` and `duration_secs` may be missing.
        figures: Its line of metrics.jsonl; may be empty.
        previous: The update evaluated before, and its lines by utterance.
        max_utterances: Most to list.
    """
    speakers = [speaker_of(record) for record in predictions]
    pieces, by_speaker = pieces_of(speakers)
    wrong = [record for record in predictions if record["errors"] or record["char_errors"]]
    found = count_confusions((record["reference"], record["hypothesis"]) for record in wrong[:_MAX_ALIGNED])
    before = previous[1] if previous else {}
    speaker_groups = _group(predictions, speaker_of) if any(speakers) else []
    length_unit, lengths = _by_length(predictions)
    return SetReport(
        name=name,
        figures=figures,
        num_utterances=len(predictions),
        num_right=sum(not record["errors"] for record in predictions),
        words=count_words(predictions),
        interval=rate_interval(*_columns(predictions), speakers),
        num_pieces=len(set(pieces.tolist())),
        by_speaker=by_speaker,
        length_unit=length_unit,
        lengths=lengths,
        speakers=sorted(speaker_groups, key=lambda group: (-group.words.rate, group.name))[:_MAX_SPEAKERS],
        num_speakers=len(speaker_groups),
        matrix=_matrix(found, Counter("".join(_spaced(record["reference"]) for record in predictions))),
        confusions=_word_confusions(found, predictions),
        num_aligned=found.num_utterances,
        num_with_errors=len(wrong),
        utterances=[
            Utterance(
                prediction=record,
                places=align_words(record["reference"], record["hypothesis"]),
                errors_before=before[record["utterance_id"]]["errors"] if record["utterance_id"] in before else None,
            )
            for record in predictions[:max_utterances]
        ],
        previous_step=previous[0] if previous else None,
        change=compare(before, predictions) if previous else None,
    )


def count_words(predictions: Iterable[Prediction]) -> ErrorCounts:
    """Sums the word errors of some lines."""
    return sum((_counts(record) for record in predictions), ErrorCounts())


def compare(before: Mapping[str, Prediction], predictions: Iterable[Prediction]) -> Change:
    """Compares two transcriptions, utterance by utterance.

    Args:
        before: Lines of the first by utterance; their `reference`, where they have it, must be the same.
        predictions: Lines of the second.
    """
    now = {record["utterance_id"]: record for record in predictions}
    common = sorted(
        name
        for name in now.keys() & before.keys()
        if before[name].get("reference", now[name]["reference"]) == now[name]["reference"]
    )
    errors = [before[name]["errors"] for name in common]
    errors_now = [now[name]["errors"] for name in common]
    words = [now[name]["num_words"] for name in common]
    test = compare_errors(errors, errors_now, words, [speaker_of(now[name]) for name in common])
    changes = sorted(zip(common, errors, errors_now, strict=True), key=lambda one: (-abs(one[2] - one[1]), one[0]))
    directions = Counter(_direction(one[1], one[2]) for one in changes)

    def most(direction: str) -> list[Changed]:
        chosen = [one for one in changes if _direction(one[1], one[2]) == direction][:_MAX_CHANGED]
        return [
            Changed(
                utterance_id=utterance_id,
                errors_before=old,
                errors_now=new,
                places_before=align_words(now[utterance_id]["reference"], before[utterance_id]["hypothesis"]),
                places_now=align_words(now[utterance_id]["reference"], now[utterance_id]["hypothesis"]),
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


def speaker_of(record: Prediction) -> str:
    """Returns the speaker of a line, "" where nobody knows; lines of older versions do not have it."""
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


def _columns(predictions: Sequence[Prediction]) -> tuple[list[int], list[int]]:
    return [record["errors"] for record in predictions], [record["num_words"] for record in predictions]


def _group(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> list[Group]:
    members: dict[str, list[Prediction]] = {}
    for record in predictions:
        members.setdefault(key(record), []).append(record)
    return [
        Group(
            name=name,
            num_utterances=len(records),
            words=count_words(records),
            interval=rate_interval(*_columns(records), [speaker_of(record) for record in records]),
        )
        for name, records in members.items()
    ]


def _by_length(predictions: Sequence[Prediction]) -> tuple[str, list[Group]]:
    """Groups with about as many utterances each, by seconds where they are known, else by words."""
    if not predictions:
        return "s", []
    by_secs = all(record.get("duration_secs") is not None for record in predictions)
    unit, name = ("s", "duration_secs") if by_secs else ("words", "num_words")
    lengths = np.array([record[name] for record in predictions], dtype=float)
    num_groups = min(_MAX_LENGTH_GROUPS, max(1, len(predictions) // _MIN_IN_GROUP))
    cuts = np.unique(np.quantile(lengths, np.arange(1, num_groups) / num_groups).round(1 if by_secs else 0))
    numbers = np.searchsorted(cuts, lengths, side="right").tolist()
    names = {}
    for number in set(numbers):
        own = [length for length, other in zip(lengths.tolist(), numbers, strict=True) if other == number]
        shortest, longest = (f"{end:.1f}" if by_secs else f"{end:.0f}" for end in (min(own), max(own)))
        names[number] = shortest if shortest == longest else f"{shortest} to {longest}"
    number_of = {record["utterance_id"]: number for record, number in zip(predictions, numbers, strict=True)}
    groups = _group(
        sorted(predictions, key=lambda record: number_of[record["utterance_id"]]),
        lambda record: names[number_of[record["utterance_id"]]],
    )
    return unit, groups


def _matrix(found: Confusions, said: Counter[str]) -> Matrix | None:
    errors = {pair: count for pair, count in found.characters.items() if pair[0] != pair[1]}
    weight: Counter[str] = Counter()
    for pair, count in errors.items():
        for symbol in pair:
            weight[symbol] += count
    del weight[""]
    symbols = sorted(symbol for symbol, _ in weight.most_common(_MAX_CHARACTERS))
    if not symbols:
        return None
    rows, most = [], 0.0
    for reference in symbols:
        num_said = said[reference]
        num_wrong = sum(count for pair, count in errors.items() if pair[0] == reference)
        cells = []
        for hypothesis in [*symbols, ""]:
            is_right = hypothesis == reference
            count = num_said - num_wrong if is_right else errors.get((reference, hypothesis), 0)
            share = count / max(num_said, 1)
            most = most if is_right else max(most, share)
            cells.append((count, share))
        rows.append((reference, num_said, cells))
    return Matrix(symbols, rows, [errors.get(("", symbol), 0) for symbol in symbols], most)


def _word_confusions(found: Confusions, predictions: Iterable[Prediction]) -> list[WordConfusion]:
    said = Counter(itertools.chain.from_iterable(record["reference"].split() for record in predictions))
    ordered = sorted(found.words.items(), key=lambda item: (-item[1], item[0]))
    return [
        WordConfusion(
            kind="inserted" if not reference else "deleted" if not hypothesis else "substituted",
            reference=reference,
            hypothesis=hypothesis,
            count=count,
            num_said=said[reference],
        )
        for (reference, hypothesis), count in ordered[:_MAX_WORDS]
    ]


def _spaced(text: str) -> str:
    return " ".join(text.split()).replace(" ", SPACE)
