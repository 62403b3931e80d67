"""What a run says before its first update: where it runs, what it starts from, how much data there is."""

from __future__ import annotations

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from engine import runtime
from engine.model_report import model_report
from engine.protocols import AcousticModel, TrainData


def log_startup(
    config: ConfigDict, *, strategy: tf.distribute.Strategy, model: AcousticModel, data: TrainData, step: int
) -> None:
    """Logs what is about to run.

    Args:
        config: Of the run.
        strategy: Where it runs.
        model: With the values it starts from.
        data: What it trains on.
        step: Updates done before; 0 = a fresh run.
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
    logging.info("%s at update %d of %d", "continuing" if step else "starting", step, train.num_updates)
