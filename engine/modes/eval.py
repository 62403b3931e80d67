"""Runs `--mode=eval`: evaluates one checkpoint on all evaluation sets."""

from __future__ import annotations

import orbit
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from engine.actions import writers
from engine.checkpointing.restore import restore_weights, step_of
from engine.config import builders, fields_of_run, recorded_run
from engine.console.training_log import without_orbit_prints
from engine.distributed import cluster
from engine.protocols import Components
from engine.training.ema import ema_name
from engine.workdir import identity


def run(
    *,
    config: ConfigDict,
    parts: Components,
    workdir: str,
    strategy: tf.distribute.Strategy,
    checkpoint: str,
    weights: str,
) -> tuple[dict[str, dict[str, float]], str]:
    """Evaluates a checkpoint; returns {set: {metric: value}} and the folder with metrics, predictions and report.

    With `weights` "ema" the sets are called `ema_name(set)`.

    Args:
        config: Config of the run, see configs/base.py.
        parts: Callables of data and models.
        workdir: Folder of the run.
        strategy: Strategy to evaluate under.
        checkpoint: Workdir or checkpoint to evaluate; "" = the workdir's own.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights.

    Raises:
        ValueError: Config, data and checkpoint do not fit together.
    """
    tokenizer = builders.build_tokenizer(config, parts, workdir=workdir, checkpoint=checkpoint)
    parts = builders.with_blank(parts, tokenizer)
    config = fields_of_run.with_recorded(config, parts, run=checkpoint or workdir)
    search = builders.build_search(config, parts, tokenizer)
    eval_data = builders.build_eval_data(config, parts, tokenizer, num_replicas=strategy.num_replicas_in_sync)
    if not eval_data:
        raise ValueError("--mode=eval needs at least one evaluation set; add one under config.data.eval")
    if weights == "ema":  # the names that training gives them; the others are those of the raw weights
        eval_data = {ema_name(name): data for name, data in eval_data.items()}
    with strategy.scope():
        model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
        path = restore_weights(model, checkpoint or workdir, weights=weights)
        global_step = orbit.utils.create_global_step()
        global_step.assign(step_of(path))
        evaluators = builders.build_evaluators(
            config, parts, strategy=strategy, model=model, tokenizer=tokenizer, eval_data=eval_data, search=search
        )
    logging.info("evaluating %s", path)
    is_chief = cluster.is_chief(strategy)
    output = identity.evaluation_folder(workdir, checkpoint) if is_chief else workdir
    writing = [
        writers.MetricsWriter(
            path=storage.join(output, layout.METRICS_FILE),
            global_step=global_step,
            set_digests={name: data.digest for name, data in evaluators.data.items()},
        ),
        writers.PredictionsWriter(
            workdir=output, scores=evaluators.scores, data=evaluators.data, global_step=global_step
        ),
        builders.report_maker(config, parts)(
            workdir=output,
            training_workdir=recorded_run.run_folder(checkpoint) or output,
            global_step=global_step,
            data=evaluators.data,
        ),
    ]
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        evaluator=evaluators,
        eval_summary_dir=storage.join(output, layout.TENSORBOARD_FOLDER) if is_chief else None,
        eval_actions=writing if is_chief else [],
    )
    with without_orbit_prints():
        return controller.evaluate(), output
