"""What a run says before its first update: where it runs, what it starts from, how much data there is."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError, parse_object
from engine.common import files
from engine.config import validation
from engine.console.model_summary import model_report
from engine.distributed import strategy as runtime
from engine.protocols import AcousticModel, TrainData


def note_stop(workdir: str, *, reason: str, step: int) -> None:
    """Leaves a note for the next process: why this one stops, when, and at which update."""
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    files.write_json_atomic(storage.join(workdir, layout.STOPPED_FILE), {"reason": reason, "time": when, "step": step})


def take_stop_note(workdir: str) -> dict[str, Any]:
    """Returns the note of the process before this one and removes it; empty where it left none."""
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
    """Says how the process before this one ended, and what that costs; "" where there is nothing to say.

    Args:
        note: As `take_stop_note`.
        step: Update that this process continues at.
        reached: Last update with a line in metrics.jsonl.
    """
    num_lost = max(reached, note.get("step", 0)) - step
    if not note and num_lost <= 0:
        return ""
    how = "the process before this one ended without a word (killed, or a crash)"
    if note:
        how = f"the process before this one was stopped by {note.get('reason')} at {note.get('time')}"
    if num_lost <= 0:
        return f"{how}, with all its updates saved"
    lost = (
        "1 update after the last checkpoint was lost and is"
        if num_lost == 1
        else (f"{num_lost} updates after the last checkpoint were lost and are")
    )
    return f"{how}; {lost} done again"


def describe_finished(config: ConfigDict, *, workdir: str, step: int) -> str:
    """Says that nothing is left to train, and how to train longer."""
    said = f"{workdir} has done its {step} updates (train.num_updates={config.train.num_updates}): nothing to train"
    longer = 2 * config.train.num_updates
    if validation.can_be_longer(config, before=config.train.num_updates, num_updates=longer, step=step):
        epochs = config.train.get("num_epochs", 0.0)
        field = f"num_epochs={2 * epochs:g}" if epochs else f"num_updates={longer}"
        return f"{said}; to train longer, say --config.train.{field}"
    return f"{said}; {validation.how_to_go_on(config, workdir=workdir)}"


def log_startup(
    config: ConfigDict,
    *,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    data: TrainData,
    step: int,
    workdir: str = "",
    last_stop: str = "",
) -> None:
    """Logs what is about to run.

    Args:
        config: Of the run.
        strategy: Where it runs.
        model: With the values it starts from.
        data: What it trains on.
        step: Updates done before; 0 = a fresh run.
        workdir: Folder of the run.
        last_stop: As `describe_last_stop`.
    """
    train = config.train
    replicas = strategy.num_replicas_in_sync
    rows = train.global_batch_size // (replicas * train.accum_steps)
    split = f"{replicas} replicas x {train.accum_steps} microbatches"
    batch = f"global batch {train.global_batch_size} = {rows} rows x {split}"
    if config.data.max_batch_secs:
        limit, multiple = config.data.max_batch_secs, config.data.row_multiple
        batch = f"global batch up to {limit:g} s with padding, its rows a multiple of {multiple}, over {split}"
    secs_per_update = data.duration_secs / data.updates_per_epoch
    logging.info("%s", runtime.describe(strategy))
    loaded = list(model.pretrained_variables)
    if config.model.init:
        heads = set() if config.model.init_head else {variable.ref() for variable in model.head_variables}
        loaded = [variable for variable in model.variables if variable.ref() not in heads]
    report = model_report(
        model, loaded=model.variables if step else loaded, loaded_word="restored" if step else "loaded"
    )
    logging.info("parameters, %s:\n  %s", train.precision, "\n  ".join(report))
    logging.info(
        "%d training utterances, %.2f h, %d updates an epoch; %s, %.1f audio-seconds an update",
        data.num_utterances,
        data.duration_secs / 3600,
        data.updates_per_epoch,
        batch,
        secs_per_update,
    )
    if train.get("num_epochs", 0.0):
        logging.info(
            "%g epochs are %d updates; evaluation %s, a checkpoint every %d",
            train.num_epochs,
            train.num_updates,
            f"every {config.eval.every_updates}" if config.eval.every_updates else "at the end",
            config.checkpoint.every_updates,
        )
    start = f"{'continuing' if step else 'starting'} at update {step} of {train.num_updates}"
    logging.info("%s", f"{start}; {last_stop}" if last_stop else start)
    if step >= train.num_updates:
        logging.warning("%s", describe_finished(config, workdir=workdir, step=step))
