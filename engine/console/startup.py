"""Logs the start of a run, and notes for the next process why this one stops."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError, parse_object
from engine.common import files
from engine.console.model_summary import model_report
from engine.distributed import strategy as runtime
from engine.protocols import AcousticModel


def note_stop(workdir: str, *, reason: str, step: int) -> None:
    """Notes for the next process why this one stops, when, and at which update."""
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    files.write_json_atomic(storage.join(workdir, layout.STOPPED_FILE), {"reason": reason, "time": when, "step": step})


def take_stop_note(workdir: str) -> dict[str, Any]:
    """Returns the note of the last process and removes it; empty if there is none or it is damaged."""
    path = storage.join(workdir, layout.STOPPED_FILE)
    if not storage.is_file(path):
        return {}
    content = storage.read_bytes(path)
    storage.remove(path)
    try:
        note = parse_object(content, path)
    except MalformedFileError:
        return {}
    return note if isinstance(note.get("step"), int) else {}


def describe_last_stop(note: dict[str, Any], *, step: int, reached: int) -> str:
    """Describes how the last process ended and which updates are lost; "" if there is nothing to report.

    Args:
        note: Result of `take_stop_note`.
        step: Update that this process continues at.
        reached: Last update with a line in metrics.jsonl.
    """
    num_lost = max(reached, note.get("step", 0)) - step
    if not note and num_lost <= 0:
        return ""
    how = "the last process ended without a note (killed or crashed)"
    if note:
        how = f"the last process was stopped by {note.get('reason')} at {note.get('time')}"
    if num_lost <= 0:
        return f"{how}, with all its updates saved"
    lost = "1 update after the last checkpoint was lost and is"
    if num_lost > 1:
        lost = f"{num_lost} updates after the last checkpoint were lost and are"
    return f"{how}; {lost} repeated"


def log_startup(
    *,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    loaded: Iterable[tf.Variable],
    precision: str,
    plan: Sequence[str],
    step: int,
    num_updates: int,
    last_stop: str = "",
) -> None:
    """Logs where a run trains, its model, its plan and where it starts.

    Args:
        strategy: Strategy to train under.
        model: Model with its initial or restored values.
        loaded: Variables whose initial values are loaded.
        precision: Name of the precision.
        plan: Lines about data, batches and intervals, see `engine.config.plan.describe_plan`.
        step: Number of updates done before; 0 = a fresh run.
        num_updates: Number of updates of the run.
        last_stop: Result of `describe_last_stop`.
    """
    logging.info("%s", runtime.describe(strategy))
    values, word = (model.variables, "restored") if step else (loaded, "loaded")
    report = model_report(model, loaded=values, loaded_word=word)
    logging.info("parameters, %s:\n  %s", precision, "\n  ".join(report))
    for line in plan:
        logging.info("%s", line)
    start = f"{'continuing' if step else 'starting'} at update {step} of {num_updates}"
    logging.info("%s", f"{start}; {last_stop}" if last_stop else start)
