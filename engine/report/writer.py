"""Eval action: WORKDIR/report.html after each evaluation. It may be slow or fail; the run goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.json_files import is_kind
from engine.common import files
from engine.protocols import EvalData
from engine.report.history import read_previous
from engine.report.page import TEMPLATES, PageEnvironment, collect_clips, render_report, training_figures
from engine.report.sets import SetReport, build_set
from engine.workdir import records

_LONGEST_FACT = 300  # characters


class ReportWriter:
    """Writes the error report of the evaluation that has just ended; predictions.jsonl must be there already."""

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
        """Keeps its arguments.

        Args:
            workdir: Where evaluations leave their files, and the report goes.
            global_step: Update of the evaluated weights.
            data: The evaluated sets, by the names of their figures.
            page_environment: As `Components.page_environment`.
            max_utterances: Worst utterances of each set that are listed; 0 = no report.
            max_audio_mb: Most audio on the page, in megabytes.
            training_workdir: Where metrics.jsonl and config.json of training are, if elsewhere.
        """
        self._workdir = os.fspath(workdir)
        self._global_step = global_step
        self._data = data
        self._page_environment = page_environment
        self._max_utterances = max_utterances
        self._max_audio_mb = max_audio_mb
        self._training_workdir = os.fspath(training_workdir or workdir)

    def __call__(self, output: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the report of an evaluation's figures, {set: {figure: value}}; what goes wrong is a warning."""
        if not self._max_utterances:
            return
        step = int(self._global_step.numpy())
        try:
            write_report(
                workdir=self._workdir,
                training_workdir=self._training_workdir,
                step=step,
                figures=output,
                data=self._data,
                page_environment=self._page_environment,
                max_utterances=self._max_utterances,
                max_audio_mb=self._max_audio_mb,
            )
        # Whatever it is: days of training are worth more than a page about them.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            path = storage.join(self._workdir, layout.REPORT_FILE)
            logging.warning("%s of update %d is not written: %s", path, step, reason)


def write_report(
    *,
    workdir: str | os.PathLike[str],
    training_workdir: str | os.PathLike[str],
    step: int,
    figures: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, EvalData],
    page_environment: PageEnvironment,
    max_utterances: int,
    max_audio_mb: float,
    path: str | os.PathLike[str] = "",
) -> str:
    """Writes the report out of what an evaluation has left in the workdir, atomically, and returns its path.

    Args:
        workdir: See `ReportWriter`; so are training_workdir, data, page_environment, max_utterances and max_audio_mb.
        training_workdir: See workdir.
        step: Update of the evaluated weights.
        figures: {set: {figure: value}}; goes with the lines of metrics.jsonl, where it may or may not be yet.
        data: See workdir; sets that are not there have no audio.
        page_environment: See workdir.
        max_utterances: See workdir.
        max_audio_mb: See workdir.
        path: Where to; "" = WORKDIR/report.html.
    """
    reports = [
        load_set(workdir, name, step=step, figures=values, max_utterances=max_utterances)
        for name, values in figures.items()
    ]
    lines = [*read_metrics(training_workdir), *(read_metrics(workdir) if workdir != training_workdir else [])]
    lines += [{"step": step, "split": name, **values} for name, values in figures.items()]
    page = render_report(
        environment=page_environment(TEMPLATES),
        title=storage.real(training_workdir).rpartition("/")[2],
        step=step,
        facts=read_facts(training_workdir),
        figures=training_figures(lines, list(figures)),
        sets=reports,
        clips=collect_clips(
            reports,
            _AudioReader(data),
            max_bytes=round(max_audio_mb * 1e6),
            source_of=lambda name: id(data[name]) if name in data else name,
        ),
    )
    target = os.fspath(path) or storage.join(workdir, layout.REPORT_FILE)
    files.write_text_atomic(target, page)
    return target


def load_set(
    workdir: str | os.PathLike[str], name: str, *, step: int, figures: Mapping[str, Any], max_utterances: int
) -> SetReport:
    """Works out the part of a set from its predictions and history in a workdir."""
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
        figures=figures,
        previous=previous,
        max_utterances=max_utterances,
    )


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the lines of a workdir's metrics.jsonl, [] where there are none."""
    path = storage.join(workdir, layout.METRICS_FILE)
    return records.read_metrics(path) if storage.is_file(path) else []


def read_facts(workdir: str | os.PathLike[str]) -> dict[str, str]:
    """Returns what to know of a run from its config.json, {} where there is none that can be read."""
    path = storage.join(workdir, layout.CONFIG_FILE)
    if not storage.is_file(path):
        return {}
    try:
        config = layout.read_config(path)
    except (ValueError, OSError) as error:
        logging.warning("no facts about the run in the report: %s", error)
        return {}
    fields = {
        "model": ("model", "preset"),
        "started from": ("model", "init"),
        "trained on": ("data", "train", "input"),
        "updates": ("train", "num_updates"),
        "precision": ("train", "precision"),
        "seed": ("seed",),
    }
    facts = {}
    for name, way in fields.items():
        value: Any = config
        for part in way:
            value = value.get(part, "") if isinstance(value, Mapping) else ""
        if is_kind(value, int):
            facts[name] = f"{value:,}"
        elif isinstance(value, (str, float)) and value != "":
            facts[name] = str(value)[:_LONGEST_FACT]
    return facts


class _AudioReader:
    """FLAC files of utterances; one that cannot be read has none."""

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
