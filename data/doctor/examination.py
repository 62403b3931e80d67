"""What the doctor says about a config's data: findings and figures, as lines, as JSON, and as the page's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.doctor.findings import Finding, Severity, count

_BINS = 40


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How a figure is spread over the utterances of a set.

    Attributes:
        title: what is counted, with its unit.
        edges: rising, one more than counts; values beyond the ends are counted in the outermost bins.
        counts: utterances of each bin.
        median: of all values.
    """

    title: str
    edges: list[float]
    counts: list[int]
    median: float

    @classmethod
    def of(cls, title: str, values: np.ndarray, *, low: float | None = None, high: float | None = None) -> Histogram:
        """Counts finite values in forty equal bins from `low` to `high` (of the values where None)."""
        values = np.asarray(values, dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return cls(title, [0.0, 1.0], [0], 0.0)
        first = float(values.min()) if low is None else low
        last = first + _round_up(float(values.max()) - first) if high is None else high
        counts, edges = np.histogram(np.clip(values, first, last), bins=_BINS, range=(first, last))
        return cls(title, edges.tolist(), counts.tolist(), float(np.median(values)))


@dataclasses.dataclass(frozen=True)
class SetFigures:
    """The figures of one set; `name` joins those of evaluation sets over the same utterances."""

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
        padded_secs: what rows are padded to.
        num_frames: the model's, of such a row.
        num_batches: of the first epoch.
        num_rows: of these, padding rows included.
        padding_share: of their samples, what is no audio.
    """

    padded_secs: float
    num_frames: int
    num_batches: int
    num_rows: int
    padding_share: float


@dataclasses.dataclass(frozen=True)
class PlanFigures:
    """The batches of the first epoch."""

    updates_per_epoch: int
    num_rows: int
    padding_share: float
    shapes: list[Shape]


@dataclasses.dataclass(frozen=True)
class Memory:
    """Predicted memory of the largest batch of a kind.

    Attributes:
        what: training or evaluation NAME.
        num_rows: rows of a microbatch.
        secs: each row's.
        predicted_bytes: None where the model cannot say.
        available_bytes: of the machine or the device; None where unknown.
    """

    what: str
    num_rows: int
    secs: float
    predicted_bytes: int | None
    available_bytes: int | None

    @property
    def is_too_much(self) -> bool:
        return bool(self.predicted_bytes and self.available_bytes and self.predicted_bytes > self.available_bytes)

    def describe(self) -> str:
        """Rows, prediction and what there is, in words."""
        rows = f"{self.num_rows} row{'s' * (self.num_rows != 1)} of {self.secs:.1f} s"
        if self.predicted_bytes is None:
            return f"{rows}: not predicted for this model"
        there_is = f" of {self.available_bytes / 2**30:.1f} GiB" if self.available_bytes else ""
        return f"{rows}: about {self.predicted_bytes / 2**30:.1f} GiB{there_is}"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """How the training texts use the vocabulary.

    Attributes:
        counts: token -> occurrences, special tokens apart.
        unused: tokens that no training text has: they cannot be learned.
        unknown: characters of the training texts that are no token, the commonest first.
        unknown_share: of all characters.
        only_in_evaluation: characters of evaluation texts that no training text has.
    """

    counts: dict[str, int]
    unused: list[str]
    unknown: str
    unknown_share: float
    only_in_evaluation: str


@dataclasses.dataclass(frozen=True)
class Examination:
    """All of it; `findings` are sorted, worst first."""

    findings: list[Finding]
    sets: list[SetFigures]
    plan: PlanFigures | None
    vocabulary: Vocabulary | None
    memory: list[Memory]

    @property
    def num_errors(self) -> int:
        return count(self.findings, Severity.ERROR)

    @property
    def num_warnings(self) -> int:
        return count(self.findings, Severity.WARNING)

    def lines(self) -> list[str]:
        """The terminal's lines: the sets, the plan, each finding, and the verdict."""
        lines = [_describe_set(figures) for figures in self.sets]
        if self.plan:
            shapes = ", ".join(f"{shape.padded_secs:.1f} s x {shape.num_batches:,}" for shape in self.plan.shapes)
            lines.append(
                f"plan: {self.plan.updates_per_epoch:,} updates an epoch, {100 * self.plan.padding_share:.1f} % "
                f"padding; shapes {shapes}"
            )
        lines += [f"memory, {item.what}: {item.describe()}" for item in self.memory]
        lines += [f"{item.severity.upper():7} {item.line()}" for item in self.findings]
        return [*lines, verdict(self.num_errors, self.num_warnings)]

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Everything, as JSON can hold it, after the fields `more`."""
        findings = [
            {
                "code": item.code,
                "severity": str(item.severity),
                "set": item.where,
                "title": item.check.title,
                "advice": item.check.advice,
                "count": item.count,
                "utterances": [{"id": key, "detail": what} for key, what in item.details.items()],
            }
            for item in self.findings
        ]
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)[1:]}
        return {
            **more,
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "findings": findings,
            **fields,
        }


def _round_up(span: float) -> float:
    """The next span whose quarters are round numbers."""
    if span <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    return unit * next(step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if step * unit >= span * (1 - 1e-9))


def verdict(num_errors: int, num_warnings: int) -> str:
    """N errors, M warnings."""
    return f"{num_errors} error{'s' * (num_errors != 1)}, {num_warnings} warning{'s' * (num_warnings != 1)}"


def _describe_set(figures: SetFigures) -> str:
    speakers = f"{figures.num_speakers:,} speakers" if figures.num_speakers else "speakers unknown"
    return (
        f"{figures.name} ({figures.corpus}): {figures.num_utterances:,} utterances, {figures.hours:.2f} h, {speakers}, "
        f"{figures.num_words:,} words; {figures.num_listened:,} listened to"
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
