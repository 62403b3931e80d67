"""Compares runs: curves, error rates on the same utterances, significance, and the config fields that differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from common import storage
from common import workdir_layout as layout
from engine.evaluation.best_metric import choose_metric
from engine.evaluation.metrics import ErrorCounts
from engine.report.curves import HEIGHT, WIDTH, Figure, draw, series_of
from engine.report.facts import RunFacts, differing_fields
from engine.report.page import RATE_TITLES, now, percent
from engine.report.sets import (
    Change,
    Prediction,
    char_rate,
    compare_predictions,
    count_words,
    interval_of,
    slice_names,
    slice_of,
)
from engine.report.statistics import Interval, holm
from engine.workdir.records import TRAIN_SPLIT, read_metrics_if_any, read_predictions


@dataclasses.dataclass(frozen=True)
class Run:
    """Evaluations of one workdir.

    Attributes:
        name: Name on the page.
        lines: Lines of metrics.jsonl.
        predictions: {set: {utterance id: line of predictions.jsonl}}.
        facts: Config and environment.
    """

    name: str
    lines: list[dict[str, Any]]
    predictions: dict[str, dict[str, Prediction]]
    facts: RunFacts

    def step_of(self, set_name: str) -> int | None:
        """Returns the update of a set's predictions; None if metrics.jsonl does not have the set."""
        steps = [line["step"] for line in self.lines if line.get("split") == set_name]
        return steps[-1] if steps else None


@dataclasses.dataclass(frozen=True)
class Rated:
    """Error rates of one run on the common utterances of one set.

    Attributes:
        name: Name of the run.
        step: Update of its weights; None if unknown.
        words: Word errors.
        interval: Confidence interval of the word error rate.
        char_rate: Character error rate.
        char_interval: Confidence interval of the character error rate.
        change: Change against the first run; None for the first run itself.
        p_value: P value of the change, corrected for multiple tests.
    """

    name: str
    step: int | None
    words: ErrorCounts
    interval: Interval | None
    char_rate: float
    char_interval: Interval | None
    change: Change | None
    p_value: float | None

    @property
    def is_significant(self) -> bool:
        """Returns True if the run's error rate differs significantly from the first run's."""
        return self.p_value is not None and self.p_value < 0.05


@dataclasses.dataclass(frozen=True)
class SlicedRun:
    """Error rates of one run on the utterances of a slice.

    Attributes:
        words: Word errors.
        char_rate: Character error rate.
        difference: Error rate that is compared, minus that of the first run.
    """

    words: ErrorCounts
    char_rate: float
    difference: float


@dataclasses.dataclass(frozen=True)
class ComparedSlice:
    """The common utterances of a set with one value of a field of the manifest.

    Attributes:
        name: The value; "" = the utterances without one.
        num_utterances: Number of utterances.
        runs: Error rates, in the order of the runs.
    """

    name: str
    num_utterances: int
    runs: list[SlicedRun]


@dataclasses.dataclass(frozen=True)
class ComparedSet:
    """Comparison of all runs on one set.

    Attributes:
        name: Name of the set.
        num_common: Utterances that all runs have with the same reference.
        num_apart: Other utterances, which are excluded.
        runs: Error rates, in the order of the runs.
        metric: The error rate that is compared, "wer" or "cer".
        slices: Field of the manifest -> the utterances with each of its values.
    """

    name: str
    num_common: int
    num_apart: int
    runs: list[Rated]
    metric: str = "wer"
    slices: Mapping[str, list[ComparedSlice]] = dataclasses.field(default_factory=dict)


def read_runs(workdirs: Sequence[str]) -> list[Run]:
    """Reads the evaluations of several workdirs.

    Args:
        workdirs: Paths or URLs.

    Raises:
        ValueError: A workdir has no evaluation, or is given twice.
    """
    names = [storage.real(workdir).rpartition("/")[2] for workdir in workdirs]
    if len(set(names)) < len(names):
        names = list(workdirs)
    if len(set(names)) < len(names):
        raise ValueError(f"--inputs={','.join(workdirs)}: a workdir is given twice; give each run once")
    runs = []
    for name, workdir in zip(names, workdirs, strict=True):
        paths = storage.glob(workdir, f"{layout.EVAL_FOLDER}/*/{layout.PREDICTIONS_FILE}")
        if not paths:
            raise ValueError(
                f"{workdir}: no eval/SET/predictions.jsonl there; give the workdir of a run that was evaluated, "
                "or evaluate it with --mode=eval"
            )
        runs.append(
            Run(
                name=name,
                lines=read_metrics_if_any(storage.join(workdir, layout.METRICS_FILE)),
                facts=RunFacts.read(workdir),
                predictions={
                    path.split("/")[-2]: {record["utterance_id"]: record for record in read_predictions(path)}
                    for path in paths
                },
            )
        )
    return runs


def compare_runs(runs: Sequence[Run]) -> list[ComparedSet]:
    """Compares each run with the first on every set that all runs have.

    Args:
        runs: At least two runs.

    Raises:
        ValueError: No set, or no utterance, is in all runs.
    """
    names = [name for name in runs[0].predictions if all(name in run.predictions for run in runs)]
    if not names:
        have = "; ".join(f"{run.name} has {', '.join(run.predictions)}" for run in runs)
        raise ValueError(f"no set was evaluated in all of these runs ({have}): evaluate one with --mode=eval")
    compared = [_compare_set(name, runs) for name in names]
    found = [one for one in compared if one.num_common]
    if not found:
        raise ValueError(
            f"{', '.join(names)}: no utterance has the same id and reference in all of "
            f"{', '.join(run.name for run in runs)}; compare runs on the same data with one data.text_normalization"
        )
    return found


def _compare_set(name: str, runs: Sequence[Run]) -> ComparedSet:
    every = [run.predictions[name] for run in runs]
    common = _common_utterances(every)
    kept = [[records[utterance_id] for utterance_id in common] for records in every]
    before = dict(zip(common, kept[0], strict=True))
    metric = choose_metric(runs[0].facts.field("eval.best_metric"), (record["reference"] for record in kept[0]))
    changes = [compare_predictions(before, records, metric=metric) for records in kept[1:]]
    p_values = [None, *holm([change.test.p_value for change in changes])]
    rated = [
        _rate(run, name, records, change, p_value)
        for run, records, change, p_value in zip(runs, kept, [None, *changes], p_values, strict=True)
    ]
    everything = set().union(*every)
    return ComparedSet(
        name=name,
        num_common=len(common),
        num_apart=len(everything) - len(common),
        runs=rated,
        metric=metric,
        slices=_compare_slices(kept, metric),
    )


def _compare_slices(kept: Sequence[Sequence[Prediction]], metric: str) -> dict[str, list[ComparedSlice]]:
    """Compares the runs on each slice, those where the first run is worst before the others.

    Args:
        kept: Lines of each run about the common utterances, in one order.
        metric: The error rate that is compared.
    """
    # A run of an older version has no slices: those of any run count for all, because the utterances are the same.
    lines = [max(same, key=lambda record: len(record.get("slices") or {})) for same in zip(*kept, strict=True)]
    return {
        name: sorted(
            (
                _compare_slice(value, [[records[i] for i in members] for records in kept], metric)
                for value, members in _members_of(lines, name).items()
            ),
            key=lambda one: (-_rate_of(one.runs[0], metric), one.name),
        )
        for name in slice_names(lines)
    }


def _members_of(lines: Sequence[Prediction], name: str) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for index, record in enumerate(lines):
        members.setdefault(slice_of(name)(record), []).append(index)
    return members


def _compare_slice(value: str, kept: Sequence[Sequence[Prediction]], metric: str) -> ComparedSlice:
    runs = [SlicedRun(count_words(records), char_rate(records), 0.0) for records in kept]
    first = _rate_of(runs[0], metric)
    runs = [dataclasses.replace(run, difference=_rate_of(run, metric) - first) for run in runs]
    return ComparedSlice(value, len(kept[0]), runs)


def _rate_of(run: Rated | SlicedRun, metric: str) -> float:
    return run.words.rate if metric == "wer" else run.char_rate


def _common_utterances(every: Sequence[dict[str, Prediction]]) -> list[str]:
    """Returns the sorted ids that all runs have with the same reference."""
    return sorted(
        utterance_id
        for utterance_id, record in every[0].items()
        if all(other.get(utterance_id, {}).get("reference") == record["reference"] for other in every)
    )


def _rate(
    run: Run, set_name: str, records: Sequence[Prediction], change: Change | None, p_value: float | None
) -> Rated:
    return Rated(
        name=run.name,
        step=run.step_of(set_name),
        words=count_words(records),
        interval=interval_of(records, "wer"),
        char_rate=char_rate(records),
        char_interval=interval_of(records, "cer"),
        change=change,
        p_value=p_value,
    )


def draw_runs(runs: Sequence[Run], sets: Sequence[ComparedSet]) -> list[Figure]:
    """Draws the curves of the runs, one figure per metric.

    Args:
        runs: Runs to draw.
        sets: Sets whose error rate is drawn.
    """
    names = [run.name for run in runs]

    def of(split: str, name: str, factor: float = 1.0) -> dict[str, Any]:
        return {run.name: series_of(run.lines, split, name, factor=factor) for run in runs}

    found = [draw("Training loss per utterance", of(TRAIN_SPLIT, "loss"), y_name="loss, nats", colors=names)]
    for one in sets:
        title = f"{RATE_TITLES[one.metric].removesuffix(', %')} of {one.name}, %"
        y_name = f"{one.metric.upper()}, %"
        found.append(draw(title, of(one.name, one.metric, 100.0), y_name=y_name, colors=names, may_be_log=False))
    rates, speeds = of(TRAIN_SPLIT, "learning_rate"), of(TRAIN_SPLIT, "audio_secs_per_sec")
    found.append(draw("Learning rate", rates, y_name="rate", colors=names, may_be_log=False))
    title = "Training throughput, seconds of audio a second"
    found.append(draw(title, speeds, y_name="audio, s per s", colors=names))
    return [figure for figure in found if figure is not None]


def render_comparison(*, environment: jinja2.Environment, runs: Sequence[Run], sets: Sequence[ComparedSet]) -> str:
    """Renders the comparison.

    Args:
        environment: Renders this folder's templates.
        runs: Runs that `read_runs` returned.
        sets: Comparisons that `compare_runs` returned.
    """
    return environment.get_template("comparison.html.jinja").render(
        title=", ".join(run.name for run in runs),
        created=now(),
        runs=runs,
        sets=sets,
        has_configs=all(run.facts.config for run in runs),
        fields=differing_fields({run.name: run.facts for run in runs}),
        figures=draw_runs(runs, sets),
        width=WIDTH,
        height=HEIGHT,
        percent=percent,
    )


def describe(sets: Sequence[ComparedSet]) -> str:
    """Returns the comparison as text, one line for each set and run."""
    lines = []
    for one in sets:
        for rated in one.runs:
            line = f"{one.name}  {rated.name}  {one.metric.upper()} {percent(_rate_of(rated, one.metric))} %"
            if rated.change is not None:
                line += f"  {100 * rated.change.test.difference:+.2f} points against {one.runs[0].name}"
                if rated.p_value is not None:
                    line += f", p {rated.p_value:.3g}{'' if rated.is_significant else ', may be chance'}"
            lines.append(line)
    return "\n".join(lines)
