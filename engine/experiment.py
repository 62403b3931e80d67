"""One run, from config to last checkpoint: the only place that unpacks the config and builds orbit.Controller."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from typing import Any

import orbit
import tensorflow as tf
import tf_keras
from absl import logging
from ml_collections import ConfigDict

from engine import actions, checkpoints, runtime
from engine import workdir as workdirs
from engine.evaluator import Evaluator, EvaluatorGroup
from engine.intervals import train_and_evaluate
from engine.model_report import model_report
from engine.optimizer import DynamicLossScale, build_optimizer
from engine.protocols import AcousticModel, Parts, Tokenizer, TrainData
from engine.schedules import build_schedule
from engine.trainer import Trainer

# Fields that may differ between a run and its continuation: they change neither the weights nor the order of the data.
RESUMABLE_FIELDS = (
    "runtime",
    "eval",
    "checkpoint",
    "data.eval",
    "data.num_parallel_calls",
    "data.prefetch_batches",
    "data.max_bad_share",
    "data.make_command",
    "train.log_every_updates",
)
_ARCHITECTURE_FIELDS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feature_projection_dropout",
    "final_dropout",
    "layer_drop",
    "mask_time_prob",
    "mask_time_length",
    "mask_feature_prob",
    "mask_feature_length",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        exit_status: 0 done, 143 or 130 stopped by a signal with everything saved.
        figures: The last evaluation, {set: {name: value}}; empty without one.
    """

    exit_status: int
    figures: dict[str, dict[str, float]]


def run(
    *, config: ConfigDict, parts: Parts, workdir: str, mode: str, strategy_name: str = "auto", checkpoint: str = ""
) -> Outcome:
    """Trains, evaluates, or both, and leaves the results in `workdir`.

    Args:
        config: As configs/base.py.
        parts: What data and models contribute.
        workdir: Folder of the run; continued if it holds checkpoints.
        mode: "train", "eval" or "train_and_eval".
        strategy_name: As `runtime.build_strategy`.
        checkpoint: For "eval": what to evaluate instead of the workdir's best checkpoint.

    Raises:
        ValueError: One line for the user: something in the config, the data or the workdir does not fit.
    """
    runtime.configure_devices(num_virtual_devices=config.runtime.num_virtual_devices)
    strategy = runtime.build_strategy(strategy_name)
    check(config, num_replicas=strategy.num_replicas_in_sync)
    os.makedirs(workdir, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(workdirs.WorkdirLock(workdir))
        if mode == "eval":
            return _evaluate(config=config, parts=parts, workdir=workdir, strategy=strategy, checkpoint=checkpoint)
        # The first thing that can fail for reasons of its own is the data: nothing is written before it was read.
        is_fresh = tf.train.latest_checkpoint(os.path.join(workdir, checkpoints.CHECKPOINTS_FOLDER)) is None
        # Weights to start from are not needed again: a run can be continued where they are gone.
        init = config.model.init if is_fresh else ""
        evaluate = mode == "train_and_eval"
        _check_inputs(config, init, evaluate=evaluate)
        tokenizer = parts.build_tokenizer(config.data.vocab)
        train_data = _build_train_data(config, parts, tokenizer)
        evaluators = _build_eval_data(config, parts, tokenizer) if evaluate else {}
        init = checkpoints.find_checkpoint(init) if init else ""
        with strategy.scope():
            model = build_model(config, parts, num_tokens=tokenizer.num_tokens)
        _check_row_lengths(config, model.max_training_samples)
        workdirs.save_config(workdir, config.to_dict(), allowed=RESUMABLE_FIELDS)
        workdirs.write_environment(workdir)
        tokenizer.save(os.path.join(workdir, "vocab.json"))
        stop = stack.enter_context(actions.StopOnSignal())
        return _train(
            config=config,
            parts=parts,
            workdir=workdir,
            strategy=strategy,
            model=model,
            tokenizer=tokenizer,
            train_data=train_data,
            eval_data=evaluators,
            init=init,
            stop=stop,
        )


def default_workdir(config_path: str) -> str:
    """Returns runs/NAME for configs/NAME.py, with or without an argument after a colon."""
    name = os.path.basename(config_path.split(":", maxsplit=1)[0]).removesuffix(".py")
    return os.path.join("runs", name)


def load_run(checkpoint: str) -> tuple[ConfigDict, str]:
    """Returns the config of the run that made a checkpoint, and the folder that it lies in.

    Args:
        checkpoint: A workdir, or a checkpoint inside one.

    Raises:
        ValueError: If no config.json belongs to it.
    """
    if not checkpoint:
        raise ValueError("--checkpoint is empty: give the workdir of a training run")
    folder = os.path.abspath(checkpoint)
    # A checkpoint's path points into WORKDIR/best or WORKDIR/checkpoints.
    for candidate in (folder, os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))):
        path = os.path.join(candidate, "config.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return ConfigDict(json.load(file)), candidate
    raise ValueError(f"{checkpoint}: no config.json there or above; give the workdir of a training run to --checkpoint")


def check(config: ConfigDict, *, num_replicas: int) -> None:
    """Checks fields against each other before anything is built.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    train = config.train
    if train.global_batch_size % (num_replicas * train.accum_steps):
        raise ValueError(
            f"train.global_batch_size={train.global_batch_size} must be a multiple of replicas x train.accum_steps = "
            f"{num_replicas} x {train.accum_steps}"
        )
    if config.eval.batch_size % num_replicas:
        raise ValueError(f"eval.batch_size={config.eval.batch_size} must be a multiple of the {num_replicas} replicas")
    for name in ("num_updates", "log_every_updates"):
        if train[name] < 1:
            raise ValueError(f"train.{name} must be at least 1, got {train[name]}")
    if config.data.eval and config.eval.best_of not in config.data.eval:
        raise ValueError(
            f"eval.best_of={config.eval.best_of!r} names no evaluation set; data.eval has "
            f"{', '.join(sorted(config.data.eval))}"
        )


def build_model(config: ConfigDict, parts: Parts, *, num_tokens: int) -> AcousticModel:
    """Builds the model of a config; inside `strategy.scope()`."""
    # Fresh weights follow the seed on every device and in every process.
    tf_keras.utils.set_random_seed(config.seed)
    return parts.build_model(
        # Runs from before there were sources do not name theirs.
        source=config.model.get("source", "native"),
        hub_handle=config.model.get("hub_handle", ""),
        preset=config.model.preset,
        vocab_size=num_tokens,
        precision=config.train.precision,
        freeze_feature_encoder=config.model.freeze_feature_encoder,
        **{name: config.model[name] for name in _ARCHITECTURE_FIELDS},
    )


def _check_inputs(config: ConfigDict, init: str, *, evaluate: bool) -> None:
    """Says what is missing, and the command that makes it, before anything slow begins.

    Raises:
        ValueError: If a corpus or the weights to start from are not there.
    """
    for fields in (config.data.train, *(config.data.eval.values() if evaluate else ())):
        if not tf.io.gfile.exists(fields.input):
            hint = f"make it with: {config.data.make_command}" if config.data.make_command else "check the path"
            raise ValueError(f"{fields.input}: no such corpus; {hint}")
    if init and not (tf.io.gfile.exists(init) or tf.io.gfile.exists(f"{init}.index")):
        raise ValueError(
            f"{init}: no such weights (model.init); convert a Hugging Face folder with: python -m models.convert "
            f"--input=HF_FOLDER --output={init}; or start from random weights with --config.model.init="
        )


def _check_row_lengths(config: ConfigDict, max_samples: int) -> None:
    """Checks that no row can be longer than the model trains on.

    Args:
        config: Whose data limits the rows.
        max_samples: Longest row; 0 = any.

    Raises:
        ValueError: Names the field and the value that would do.
    """
    if not max_samples:
        return
    limits = {"max_duration_secs": max_samples / 16_000 * min(config.data.speed_factors)}
    if config.data.join_max_utterances > 1:
        limits["join_max_secs"] = max_samples / 16_000  # which is meant at the slowest speed already
    for name, limit in limits.items():
        if not 0 < config.data[name] <= limit:
            raise ValueError(
                f"data.{name}={config.data[name]:g}: this model trains on rows of at most {max_samples} samples; set "
                f"{math.floor(limit * 1000) / 1000:g} or less (longer rows are left out, and counted)"
            )


def _build_train_data(config: ConfigDict, parts: Parts, tokenizer: Tokenizer) -> TrainData:
    data = config.data
    return parts.build_train_data(
        tokenizer=tokenizer,
        text_style=data.text_style,
        **data.train.to_dict(),
        on_rate_mismatch=data.on_rate_mismatch,
        global_batch_size=config.train.global_batch_size,
        seed=config.seed,
        num_buckets=data.num_buckets,
        bucket_boundaries_samples=data.bucket_boundaries_samples,
        min_duration_secs=data.min_duration_secs,
        max_duration_secs=data.max_duration_secs,
        join_max_utterances=data.join_max_utterances,
        join_max_secs=data.join_max_secs,
        join_gap_secs=data.join_gap_secs,
        speed_factors=data.speed_factors,
        num_parallel_calls=data.num_parallel_calls,
        prefetch_batches=data.prefetch_batches,
    )


def _build_eval_data(config: ConfigDict, parts: Parts, tokenizer: Tokenizer) -> dict[str, Any]:
    data = config.data
    return {
        name: parts.build_eval_data(
            tokenizer=tokenizer,
            text_style=data.text_style,
            **fields.to_dict(),
            on_rate_mismatch=data.on_rate_mismatch,
            batch_size=config.eval.batch_size,
            num_buckets=data.num_buckets,
            num_parallel_calls=data.num_parallel_calls,
            prefetch_batches=data.prefetch_batches,
        )
        for name, fields in data.eval.items()
    }


def _build_evaluators(
    config: ConfigDict,
    parts: Parts,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    tokenizer: Tokenizer,
    eval_data: dict[str, Any],
) -> EvaluatorGroup:
    return EvaluatorGroup(
        {
            name: Evaluator(
                name=name,
                strategy=strategy,
                model=model,
                data=data,
                loss_fn=parts.loss_fn,
                feasible_fn=parts.feasible_fn,
                decoder=parts.decoder,
                tokenizer=tokenizer,
                num_logged=config.eval.num_logged,
            )
            for name, data in eval_data.items()
        }
    )


def _train(
    *,
    config: ConfigDict,
    parts: Parts,
    workdir: str,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    tokenizer: Tokenizer,
    train_data: TrainData,
    eval_data: dict[str, Any],
    init: str,
    stop: actions.StopOnSignal,
) -> Outcome:
    train = config.train
    with strategy.scope():
        global_step = orbit.utils.create_global_step()
        optimizer = build_optimizer(
            name=train.optimizer,
            learning_rate=build_schedule(
                name=train.schedule,
                peak_learning_rate=train.learning_rate,
                num_updates=train.num_updates,
                warmup_updates=train.warmup_updates,
                hold_updates=train.hold_updates,
            ),
            beta_1=train.beta_1,
            beta_2=train.beta_2,
            epsilon=train.epsilon,
            weight_decay=train.weight_decay,
        )
        loss_scale = DynamicLossScale() if train.precision == "mixed_float16" else None
        trainer = Trainer(
            strategy=strategy,
            model=model,
            optimizer=optimizer,
            global_step=global_step,
            dataset_fn=train_data.dataset,
            loss_fn=parts.loss_fn,
            feasible_fn=parts.feasible_fn,
            loss_scale=loss_scale,
            accum_steps=train.accum_steps,
            clip_norm=train.clip_norm,
            freeze_encoder_updates=config.model.freeze_encoder_updates,
            seed=config.seed,
        )
        evaluators = _build_evaluators(config, parts, strategy, model, tokenizer, eval_data) if eval_data else None

    state = tf.train.Checkpoint(model=model, optimizer=optimizer, global_step=global_step)
    if loss_scale is not None:
        state.loss_scale = loss_scale
    manager = checkpoints.CheckpointManager(
        checkpoint=state,
        directory=os.path.join(workdir, checkpoints.CHECKPOINTS_FOLDER),
        global_step=global_step,
        every_updates=config.checkpoint.every_updates,
        keep=config.checkpoint.keep,
        init_fn=lambda: _initialize(model, init, with_head=config.model.init_head),
    )
    best = checkpoints.BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model),
        directory=os.path.join(workdir, checkpoints.BEST_FOLDER),
        global_step=global_step,
    )
    metrics_path = os.path.join(workdir, "metrics.jsonl")
    writer = actions.MetricsWriter(path=metrics_path, global_step=global_step)
    bar = actions.ProgressBar(global_step=global_step, num_updates=train.num_updates)
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        trainer=trainer,
        evaluator=evaluators,
        steps_per_loop=train.log_every_updates,
        checkpoint_manager=manager,
        summary_dir=os.path.join(workdir, "tensorboard"),
        eval_summary_dir=os.path.join(workdir, "tensorboard"),
        train_actions=[writer, bar, actions.BadRowGuard(max_bad_share=config.data.max_bad_share), stop],
        eval_actions=[
            writer,
            actions.PredictionsWriter(workdir=workdir, evaluators=evaluators.evaluators if evaluators else {}),
            actions.SaveBest(best=best, key=(config.eval.best_of, "wer")),
            bar.restart_clock,
            stop,
        ],
    )
    # The controller has restored by now; lines that a killed process wrote past its checkpoint will be written again.
    actions.truncate_metrics(metrics_path, int(global_step.numpy()))
    _report(config, strategy, model, train_data, int(global_step.numpy()))

    figures: dict[str, dict[str, float]] = {}
    with bar:
        try:
            if evaluators is None:
                controller.train(train.num_updates)
            else:
                figures = train_and_evaluate(
                    controller,
                    num_updates=train.num_updates,
                    every_updates=config.eval.every_updates,
                    metrics_path=metrics_path,
                    sets=evaluators.evaluators,
                )
        except actions.StopTraining as reason:
            controller.save_checkpoint()
            logging.warning("%s; saved at update %d", reason, int(global_step.numpy()))
            return Outcome(exit_status=stop.exit_status or 2, figures={})
    return Outcome(exit_status=0, figures=figures or {})


def _evaluate(
    *, config: ConfigDict, parts: Parts, workdir: str, strategy: tf.distribute.Strategy, checkpoint: str
) -> Outcome:
    vocab = os.path.join(workdir, "vocab.json")
    tokenizer = parts.build_tokenizer(vocab if os.path.exists(vocab) else config.data.vocab)
    eval_data = _build_eval_data(config, parts, tokenizer)
    if not eval_data:
        raise ValueError("--mode=eval needs at least one set under config.data.eval")
    with strategy.scope():
        model = build_model(config, parts, num_tokens=tokenizer.num_tokens)
        path = checkpoints.restore_model(model, checkpoint or workdir)
        global_step = orbit.utils.create_global_step()
        global_step.assign(checkpoints.step_of(path))
        evaluators = _build_evaluators(config, parts, strategy, model, tokenizer, eval_data)
    logging.info("evaluating %s", path)
    writer = actions.MetricsWriter(path=os.path.join(workdir, "metrics.jsonl"), global_step=global_step)
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        evaluator=evaluators,
        eval_summary_dir=os.path.join(workdir, "tensorboard"),
        eval_actions=[writer, actions.PredictionsWriter(workdir=workdir, evaluators=evaluators.evaluators)],
    )
    return Outcome(exit_status=0, figures=controller.evaluate())


def _initialize(model: AcousticModel, init: str, *, with_head: bool) -> None:
    """Starts from other weights; called by the controller when there is no checkpoint to continue from."""
    if init:
        path = checkpoints.restore_model(model, init, leave_out=() if with_head else ("head",))
        logging.info("started from %s, %s", path, "head included" if with_head else "with a fresh head")


def _report(
    config: ConfigDict, strategy: tf.distribute.Strategy, model: AcousticModel, data: TrainData, step: int
) -> None:
    """Says what is about to run."""
    train = config.train
    replicas = strategy.num_replicas_in_sync
    rows = train.global_batch_size // (replicas * train.accum_steps)
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
        "%d training utterances, %.2f h, %d updates an epoch; batch %d = %d rows x %d replicas x %d microbatches",
        data.num_utterances,
        data.duration_secs / 3600,
        data.updates_per_epoch,
        train.global_batch_size,
        rows,
        replicas,
        train.accum_steps,
    )
    logging.info("%s at update %d of %d", "continuing" if step else "starting", step, train.num_updates)
