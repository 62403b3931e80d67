"""Holds the result of the doctor: findings and statistics, as text lines, as JSON and as input of the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.readable import duration
from data.augmentation.examples import Example
from data.doctor.cleaning import CleanedSet
from data.doctor.findings import Finding, Severity, count

_BINS = 40
_SHOWN_UNSEEN = 5  # words on a line of the terminal


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Histogram of a value over the utterances of a set.

    Attributes:
        title: Name of the value with its unit; it names the horizontal axis.
        edges: Ascending, one more than counts; values beyond the ends are counted in the outermost bins.
        counts: Utterances in each bin.
        median: Median of all values.
    """

    title: str
    edges: list[float]
    counts: list[int]
    median: float

    @classmethod
    def of(cls, title: str, values: np.ndarray, *, low: float | None = None, high: float | None = None) -> Histogram:
        """Counts finite values in 40 equal bins from `low` to `high`; None takes the end of the values."""
        values = np.asarray(values, dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return cls(title, [0.0, 1.0], [0], 0.0)
        first = float(values.min()) if low is None else low
        last = first + round_up(float(values.max()) - first) if high is None else high
        counts, edges = np.histogram(np.clip(values, first, last), bins=_BINS, range=(first, last))
        return cls(title, edges.tolist(), counts.tolist(), float(np.median(values)))


@dataclasses.dataclass(frozen=True)
class SetStatistics:
    """Statistics of one set; `name` joins the names of evaluation sets that have the same utterances."""

    name: str
    corpus: str
    num_utterances: int
    hours: float
    num_speakers: int
    num_words: int
    num_characters: int
    num_left_out: int
    num_listened: int
    histograms: list[Histogram]


@dataclasses.dataclass(frozen=True)
class Shape:
    """One shape of training batches.

    Attributes:
        padded_secs: Length of a padded row.
        num_frames: Frames of the model for such a row.
        num_batches: Batches of this shape in the first epoch.
        num_rows: Rows of these batches, padding rows included.
        padding_ratio: Ratio of their samples that is padding.
    """

    padded_secs: float
    num_frames: int
    num_batches: int
    num_rows: int
    padding_ratio: float


@dataclasses.dataclass(frozen=True)
class PlanStatistics:
    """Statistics of the batches of the first epoch."""

    updates_per_epoch: int
    num_rows: int
    padding_ratio: float
    shapes: list[Shape]

    def describe(self) -> str:
        """Returns the updates of an epoch, the padding and the shapes as text."""
        shapes = ", ".join(f"{shape.padded_secs:.1f} s x {shape.num_batches:,}" for shape in self.shapes)
        return f"{self.updates_per_epoch:,} updates an epoch, {100 * self.padding_ratio:.1f} % padding; shapes {shapes}"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Predicted memory of the largest batch of training or of an evaluation.

    Attributes:
        what: "training" or "evaluation NAME".
        num_rows: Rows of a microbatch.
        secs: Length of each row.
        predicted_bytes: Predicted memory; None if there is no estimate for the model.
        available_bytes: Memory of the machine or the device; None if unknown.
    """

    what: str
    num_rows: int
    secs: float
    predicted_bytes: int | None
    available_bytes: int | None

    @property
    def is_too_much(self) -> bool:
        """Returns True if the prediction exceeds what is available."""
        return bool(self.predicted_bytes and self.available_bytes and self.predicted_bytes > self.available_bytes)

    def describe(self) -> str:
        """Returns rows, prediction and available memory as text."""
        rows = f"{self.num_rows} row{'s' * (self.num_rows != 1)} of {self.secs:.1f} s"
        if self.predicted_bytes is None:
            return f"{rows}: not predicted for this model"
        there_is = f" of {self.available_bytes / 2**30:.1f} GiB" if self.available_bytes else ""
        return f"{rows}: about {self.predicted_bytes / 2**30:.1f} GiB{there_is}"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Use of the vocabulary by the training texts.

    Attributes:
        counts: Token -> occurrences, without special tokens.
        unused: Tokens that no training text has, so that they cannot be learned.
        unknown: Characters of the training texts that are no token, most frequent first.
        unknown_ratio: Ratio of all characters that is unknown.
        only_in_evaluation: Characters of evaluation texts that no training text has.
    """

    counts: dict[str, int]
    unused: list[str]
    unknown: str
    unknown_ratio: float
    only_in_evaluation: str


@dataclasses.dataclass(frozen=True)
class SetWords:
    """Words of one set, and those of them that training never has.

    Attributes:
        name: Name of the set, as in `SetStatistics`.
        num_words: Words of all texts.
        num_distinct: Distinct words.
        frequent: (word, count) of the most frequent words.
        num_unseen: Words of all texts that no training text has; 0 for the training set.
        num_unseen_distinct: Distinct words among them.
        unseen: (word, count) of the most frequent among them.
    """

    name: str
    num_words: int
    num_distinct: int
    frequent: list[tuple[str, int]]
    num_unseen: int = 0
    num_unseen_distinct: int = 0
    unseen: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    @property
    def unseen_ratio(self) -> float:
        """Returns the ratio of all words that training never has."""
        return self.num_unseen / max(self.num_words, 1)


@dataclasses.dataclass(frozen=True)
class TrainingTime:
    """Predicted time of all updates, without evaluations and checkpoints.

    Attributes:
        num_updates: Updates of the run.
        low_secs: Lower end of the prediction.
        high_secs: Upper end of the prediction.
        basis: How it was predicted, a clause.
    """

    num_updates: int
    low_secs: float
    high_secs: float
    basis: str

    def describe(self) -> str:
        """Returns the prediction and its basis as text."""
        low, high = duration(self.low_secs), duration(self.high_secs)
        time = f"about {low}" if low == high else f"{low} to {high}"
        return f"{self.num_updates:,} updates: {time}, {self.basis}"


@dataclasses.dataclass(frozen=True)
class DoctorReport:
    """Result of the doctor.

    Attributes:
        findings: Sorted, worst first.
        sets: Statistics of each set.
        plan: Batches of the first epoch; None without a training set.
        vocabulary: Use of the vocabulary; None without a training set.
        memory: Predicted memory of each set's largest batch.
        words: Words of each set.
        time: Predicted training time; None if it cannot be predicted.
        clips: (set, utterance id) -> FLAC file of an utterance with a finding; not part of the JSON.
        texts: (set, utterance id) -> transcript of an utterance on the page, which can be marked; not part of the JSON.
        cleaned: Sets of which utterances have errors, without them; not part of the JSON.
        examples: Utterances of the sets that are altered, to listen to; their audio is not part of the JSON.
    """

    findings: list[Finding]
    sets: list[SetStatistics]
    plan: PlanStatistics | None
    vocabulary: Vocabulary | None
    memory: list[Memory]
    words: list[SetWords] = dataclasses.field(default_factory=list)
    time: TrainingTime | None = None
    clips: Mapping[tuple[str, str], bytes] = dataclasses.field(default_factory=dict)
    examples: list[Example] = dataclasses.field(default_factory=list)
    texts: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    cleaned: list[CleanedSet] = dataclasses.field(default_factory=list)

    @property
    def num_errors(self) -> int:
        """Returns the number of findings that are errors."""
        return count(self.findings, Severity.ERROR)

    @property
    def num_warnings(self) -> int:
        """Returns the number of findings that are warnings."""
        return count(self.findings, Severity.WARNING)

    def lines(self) -> list[str]:
        """Returns the lines for a terminal: sets, batches, memory, time, words, findings and the verdict."""
        lines = [_describe_set(one) for one in self.sets]
        if self.plan:
            lines.append(f"plan: {self.plan.describe()}")
        lines += [f"memory, {item.what}: {item.describe()}" for item in self.memory]
        if self.time:
            lines.append(f"time, {self.time.describe()}")
        lines += [_describe_unseen(words) for words in self.words if words.num_unseen]
        if self.examples:
            lines.append(f"augmentation: doctor.html has {len(self.examples)} examples to listen to")
        lines += [one.describe() for one in self.cleaned]
        lines += [f"{item.severity.upper():7} {item.line()}" for item in self.findings]
        return [*lines, verdict(self.num_errors, self.num_warnings)]

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Returns everything but the audio as JSON values, after the fields `more`."""
        findings = [
            {
                "code": item.code,
                "severity": str(item.severity),
                "set": item.where,
                "title": item.check.title,
                "advice": item.advice,
                "count": item.count,
                "utterances": [{"id": key, "detail": what} for key, what in item.details.items()],
            }
            for item in self.findings
        ]
        apart = ("findings", "clips", "examples", "texts", "cleaned")
        names = [field.name for field in dataclasses.fields(self) if field.name not in apart]
        fields = {name: _plain(getattr(self, name)) for name in names}
        return {
            **more,
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "findings": findings,
            **fields,
            "augmentation": [
                {"set": example.where, "id": example.utterance_id, "what": example.what} for example in self.examples
            ],
        }


def round_up(span: float) -> float:
    """Returns the next larger span whose quarters are round numbers."""
    if span <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    return unit * next(step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if step * unit >= span * (1 - 1e-9))


def verdict(num_errors: int, num_warnings: int) -> str:
    """Returns the numbers of errors and warnings as text."""
    return f"{num_errors} error{'s' * (num_errors != 1)}, {num_warnings} warning{'s' * (num_warnings != 1)}"


def _describe_set(one: SetStatistics) -> str:
    speakers = f"{one.num_speakers:,} speakers" if one.num_speakers else "speakers unknown"
    return (
        f"{one.name} ({one.corpus}): {one.num_utterances:,} utterances, {one.hours:.2f} h, {speakers}, "
        f"{one.num_words:,} words; {one.num_listened:,} listened to"
    )


def _describe_unseen(words: SetWords) -> str:
    shown = ", ".join(word for word, _ in words.unseen[:_SHOWN_UNSEEN])
    more = ", ..." if words.num_unseen_distinct > _SHOWN_UNSEEN else ""
    return (
        f"words, {words.name}: {words.num_unseen:,} of {words.num_words:,} ({100 * words.unseen_ratio:.1f} %) are "
        f"never in training: {shown}{more}"
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
