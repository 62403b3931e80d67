"""Several runs side by side: their curves, their error rates on the same utterances, and whether they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jinja2

from common import storage
from common import workdir_layout as layout
from engine.evaluation.metrics import ErrorCounts
from engine.report.curves import HEIGHT, WIDTH, Figure, draw, series_of
from engine.report.page import now, percent
from engine.report.sets import Change, Prediction, compare, count_words, speaker_of
from engine.report.statistics import Interval, holm, rate_interval
from engine.workdir.records import read_metrics, read_predictions

_TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds of its evaluations.

    Attributes:
        name: On the page.
        lines: Of metrics.jsonl.
        predictions: {set: {utterance id: line of predictions.jsonl}}.
    """

    name: str
    lines: list[dict[str, Any]]
    predictions: dict[str, dict[str, Prediction]]

    def step_of(self, set_name: str) -> int | None:
        """Returns the update whose predictions of a set there are; None where nothing tells it."""
        steps = [line["step"] for line in self.lines if line.get("split") == set_name]
        return steps[-1] if steps else None


@dataclasses.dataclass(frozen=True)
class Rated:
    """One run on one set.

    Attributes:
        name: Of the run.
        step: Update of its weights; None where nothing tells it.
        words: Errors on the common utterances.
        interval: Of the error rate.
        change: Against the first run; None for the first itself.
        p_value: Of that change, corrected where there are several.
    """

    name: str
    step: int | None
    words: ErrorCounts
    interval: Interval | None
    change: Change | None
    p_value: float | None

    @property
    def is_significant(self) -> bool:
        """Whether the run differs from the first."""
        return self.p_value is not None and self.p_value < 0.05


@dataclasses.dataclass(frozen=True)
class ComparedSet:
    """One set that all runs have.

    Attributes:
        name: Of the set.
        num_common: Utterances that all runs have with the same reference.
        num_apart: Utterances that do not count, because they have not.
        runs: In the order given.
    """

    name: str
    num_common: int
    num_apart: int
    runs: list[Rated]


def read_runs(workdirs: Sequence[str]) -> list[Run]:
    """Reads the evaluations in some workdirs.

    Raises:
        ValueError: A workdir has none; names it.
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
        metrics = storage.join(workdir, layout.METRICS_FILE)
        runs.append(
            Run(
                name=name,
                lines=read_metrics(metrics) if storage.is_file(metrics) else [],
                predictions={
                    path.split("/")[-2]: {record["utterance_id"]: record for record in read_predictions(path)}
                    for path in paths
                },
            )
        )
    return runs


def compare_runs(runs: Sequence[Run]) -> list[ComparedSet]:
    """Compares each run with the first, on every set that all have.

    Raises:
        ValueError: There is no set, or no utterance, that all have.
    """
    names = [name for name in runs[0].predictions if all(name in run.predictions for run in runs)]
    if not names:
        have = "; ".join(f"{run.name} has {', '.join(run.predictions)}" for run in runs)
        raise ValueError(f"no set was evaluated in all of these runs ({have}): evaluate one with --mode=eval")
    found = [one for one in (_compare_set(name, runs) for name in names) if one.num_common]
    if not found:
        raise ValueError(
            f"{', '.join(names)}: no utterance has the same id and reference in all of "
            f"{', '.join(run.name for run in runs)}; compare runs on the same data with the same data.text_style"
        )
    return found


def _compare_set(name: str, runs: Sequence[Run]) -> ComparedSet:
    every = [run.predictions[name] for run in runs]
    first = every[0]
    common = sorted(
        utterance_id
        for utterance_id, record in first.items()
        if all(other.get(utterance_id, {}).get("reference") == record["reference"] for other in every)
    )
    kept = [[records[utterance_id] for utterance_id in common] for records in every]
    before = dict(zip(common, kept[0], strict=True))
    changes = [compare(before, records) for records in kept[1:]]
    p_values = [None, *holm([change.test.p_value for change in changes])]
    rated = []
    for run, records, change, p_value in zip(runs, kept, [None, *changes], p_values, strict=True):
        rated.append(
            Rated(
                name=run.name,
                step=run.step_of(name),
                words=count_words(records),
                interval=rate_interval(
                    [record["errors"] for record in records],
                    [record["num_words"] for record in records],
                    [speaker_of(record) for record in records],
                ),
                change=change,
                p_value=p_value,
            )
        )
    everything = set().union(*every)
    return ComparedSet(name=name, num_common=len(common), num_apart=len(everything) - len(common), runs=rated)


def draw_runs(runs: Sequence[Run], sets: Sequence[ComparedSet]) -> list[Figure]:
    """Returns the curves of the runs, one figure for each kind."""
    names = [run.name for run in runs]

    def of(split: str, name: str, factor: float = 1.0) -> dict[str, Any]:
        return {run.name: series_of(run.lines, split, name, factor=factor) for run in runs}

    found = [draw("Training loss per utterance", of(_TRAIN, "loss"), colours=names)]
    for one in sets:
        title = f"Word error rate of {one.name}, %"
        found.append(draw(title, of(one.name, "wer", 100.0), colours=names, may_be_log=False))
    found.append(draw("Learning rate", of(_TRAIN, "learning_rate"), colours=names, may_be_log=False))
    found.append(
        draw("Training throughput, seconds of audio a second", of(_TRAIN, "audio_secs_per_sec"), colours=names)
    )
    return [figure for figure in found if figure is not None]


def render_comparison(*, environment: jinja2.Environment, runs: Sequence[Run], sets: Sequence[ComparedSet]) -> str:
    """Returns the page.

    Args:
        environment: Renders this folder's templates.
        runs: As `read_runs`.
        sets: As `compare_runs`.
    """
    return environment.get_template("comparison.html.jinja").render(
        title=", ".join(run.name for run in runs),
        created=now(),
        runs=runs,
        sets=sets,
        figures=draw_runs(runs, sets),
        width=WIDTH,
        height=HEIGHT,
        percent=percent,
    )


def describe(sets: Sequence[ComparedSet]) -> str:
    """Returns the comparison in words, a line for each set and run."""
    lines = []
    for one in sets:
        for rated in one.runs:
            line = f"{one.name}  {rated.name}  WER {percent(rated.words.rate)} %"
            if rated.change is not None:
                line += f"  {100 * rated.change.test.difference:+.2f} points against {one.runs[0].name}"
                if rated.p_value is not None:
                    line += f", p {rated.p_value:.3g}{'' if rated.is_significant else ', may be chance'}"
            lines.append(line)
    return "\n".join(lines)
