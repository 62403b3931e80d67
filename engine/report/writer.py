"""Writes WORKDIR/report.html after each evaluation; a failure is a warning and the run continues."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.readable import describe_error
from engine.common import files
from engine.evaluation.best_metric import AUTO
from engine.protocols import EvalData
from engine.report.facts import RunFacts, headline
from engine.report.history import read_previous
from engine.report.page import TEMPLATES, PageEnvironment, collect_clips, render_report, training_figures
from engine.report.sets import SetReport, build_set
from engine.workdir import records


class ReportWriter:
    """Evaluation action that writes the error report; predictions.jsonl must have been written before."""

    def __init__(
        self,
        *,
        workdir: str | os.PathLike[str],
        global_step: tf.Variable,
        data: Mapping[str, EvalData],
        page_environment: PageEnvironment,
        max_utterances: int,
        max_audio_mb: float,
        training_workdir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Configures the reports of a workdir.

        Args:
            workdir: Folder with the files of the evaluations, which gets the report.
            global_step: Update of the evaluated weights.
            data: The evaluated sets by name.
            page_environment: Returns an environment that renders the templates of a folder.
            max_utterances: Limit of the listed utterances of each set; 0 = no report.
            max_audio_mb: Limit of the audio on the page with its waveforms, in megabytes.
            training_workdir: Folder with metrics.jsonl and config.json of the training, if it is another one.
        """
        self._workdir = os.fspath(workdir)
        self._global_step = global_step
        self._data = data
        self._page_environment = page_environment
        self._max_utterances = max_utterances
        self._max_audio_mb = max_audio_mb
        self._training_workdir = os.fspath(training_workdir or workdir)

    def __call__(self, output: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the report of an evaluation's metrics, {set: {metric: value}}; any failure is a warning."""
        if not self._max_utterances:
            return
        step = int(self._global_step.numpy())
        try:
            write_report(
                workdir=self._workdir,
                training_workdir=self._training_workdir,
                step=step,
                metrics=output,
                data=self._data,
                page_environment=self._page_environment,
                max_utterances=self._max_utterances,
                max_audio_mb=self._max_audio_mb,
            )
        # Any exception: days of training are worth more than a page about them.
        except Exception as error:
            reason = describe_error(error)
            path = storage.join(self._workdir, layout.REPORT_FILE)
            logging.warning("%s of update %d is not written: %s", path, step, reason)


def write_report(
    *,
    workdir: str | os.PathLike[str],
    training_workdir: str | os.PathLike[str],
    step: int,
    metrics: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, EvalData],
    page_environment: PageEnvironment,
    max_utterances: int,
    max_audio_mb: float,
    path: str | os.PathLike[str] = "",
) -> str:
    """Writes the report from the files of an evaluation, atomically, and returns its path.

    Args:
        workdir: Folder with the files of the evaluation.
        training_workdir: Folder with metrics.jsonl and config.json of the training.
        step: Update of the evaluated weights.
        metrics: {set: {metric: value}}, whether or not metrics.jsonl already has them.
        data: The evaluated sets by name; a set that is absent has no audio.
        page_environment: Returns an environment that renders the templates of a folder.
        max_utterances: Limit of the listed utterances of each set.
        max_audio_mb: Limit of the audio on the page with its waveforms, in megabytes.
        path: Output file; "" = WORKDIR/report.html.
    """
    environment, facts = page_environment(TEMPLATES), RunFacts.read(training_workdir)
    metric = facts.field("eval.best_metric")
    reports = [load_set(workdir, name, step=step, max_utterances=max_utterances, metric=metric) for name in metrics]
    folders = dict.fromkeys((os.fspath(training_workdir), os.fspath(workdir)))
    paths = [storage.join(folder, layout.METRICS_FILE) for folder in folders]
    lines = [line for one in paths for line in records.read_metrics_if_any(one)]
    lines += [{"step": step, "split": name, **values} for name, values in metrics.items()]
    page = render_report(
        environment=environment,
        title=storage.real(training_workdir).rpartition("/")[2],
        step=step,
        facts=facts,
        tiles=headline(facts, reports, lines, step=step),
        figures=training_figures(lines, list(metrics), metrics={one.metric for one in reports}),
        sets=reports,
        texts=_find_texts(reports, data),
        place=storage.real(workdir),
        clips=collect_clips(
            reports,
            _AudioReader(data),
            max_bytes=round(max_audio_mb * 1e6),
            source_of=lambda name: id(data[name]) if name in data else name,
            wave_path=cast("Callable[[bytes], str]", environment.globals["wave_path"]),
        ),
    )
    target = os.fspath(path) or storage.join(workdir, layout.REPORT_FILE)
    files.write_text_atomic(target, page)
    return target


def load_set(
    workdir: str | os.PathLike[str], name: str, *, step: int, max_utterances: int, metric: object = AUTO
) -> SetReport:
    """Builds the report of a set from its predictions and history in a workdir."""
    folder = storage.join(workdir, layout.EVAL_FOLDER, name)
    predictions = records.read_predictions(storage.join(folder, layout.PREDICTIONS_FILE))
    try:
        previous = read_previous(folder, step)
    except (ValueError, OSError) as error:
        logging.warning("no comparison with an earlier evaluation in the report: %s", error)
        previous = None
    return build_set(
        name=name,
        predictions=predictions,
        previous=previous,
        max_utterances=max_utterances,
        metric=metric,
    )


def _find_texts(reports: Iterable[SetReport], data: Mapping[str, EvalData]) -> dict[tuple[str, str], str]:
    """Returns (set, utterance id) -> transcript of the listed utterances, as the corpus has it or else normalized.

    Rows that join several utterances have none: a correction of theirs would belong to no line of a manifest.
    """
    found: dict[tuple[str, str], str] = {}
    for one in reports:
        listed = {item.prediction["utterance_id"]: item.prediction["reference"] for item in one.utterances}
        if one.name in data:
            rows = data[one.name]
            texts = {rows.utterance_ids[index]: text for index, text in rows.texts.items()}
            listed = {name: texts[name] for name in listed if name in texts}
        found |= {(one.name, name): text for name, text in listed.items()}
    return found


class _AudioReader:
    """Returns FLAC files of utterances; None for one that cannot be read."""

    def __init__(self, data: Mapping[str, EvalData]) -> None:
        self._data = data
        self._index_of: dict[str, dict[str, int]] = {}

    def __call__(self, name: str, utterance_id: str) -> bytes | None:
        if name not in self._data:
            return None
        if name not in self._index_of:
            self._index_of[name] = {text: index for index, text in self._data[name].utterance_ids.items()}
        index = self._index_of[name].get(utterance_id)
        if index is None:
            return None
        try:
            return self._data[name].read_flac(index)
        except (ValueError, RuntimeError, OSError) as error:
            logging.debug("no audio of %s in the report: %s", utterance_id, error)
            return None
