"""Runs an experiment from its config: prepares devices, data, model and workdir, then trains or evaluates."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import tensorflow as tf
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from engine.checkpointing.restore import find_checkpoint
from engine.common import signals
from engine.config import builders, fields_of_run, recorded_run, row_length, validation
from engine.console.model_summary import count_parameters
from engine.distributed import cluster
from engine.distributed import strategy as runtime
from engine.distributed.lost_worker import explained_loss
from engine.modes import continuous_eval, eval, train
from engine.modes.train import Outcome, PreparedRun
from engine.protocols import AcousticModel, Components, Tokenizer, TrainData
from engine.workdir import folder as workdirs
from engine.workdir import identity

# Fields that may differ between a run and its continuation: they change neither the weights nor the order of the data.
RESUMABLE_FIELDS = (
    "name",
    "runtime",
    "verify_resume",
    "eval",
    "decode",
    "tune_lm",
    "pseudo_label",
    "segment",
    "checkpoint",
    "data.eval",
    "data.train.input",  # the corpus may have moved; its fingerprint is compared
    "data.augment.noise_source",  # so may noises and impulse responses; the fingerprint has their names
    "data.augment.room_source",
    "data.num_parallel_calls",
    "data.prefetch_batches",
    "data.max_unreadable_ratio",
    "data.prepare_command",
    "data.allow_train_eval_overlap",
    "data.doctor_max_hours",
    "train.log_every_updates",
    "train.max_consecutive_skips",
)
# Fields that decide how an update is computed and what memory it takes, but not its result beyond rounding. They may
# differ too; the workdir's config then takes the new values.
MEMORY_FIELDS = (
    "model.fused_ops",
    "model.gradient_checkpointing",
    "train.microbatch_rows",
    "train.microbatch_secs",
)
_TRAINING_MODES = ("train", "train_and_eval")


def run(
    *,
    config: ConfigDict,
    parts: Components,
    workdir: str,
    mode: str,
    strategy_name: str = "auto",
    tpu: str = "",
    checkpoint: str = "",
    stop: signals.StopOnSignal | None = None,
    weights: str = "",
) -> Outcome:
    """Trains, evaluates, or both, and writes the results to `workdir`.

    Args:
        config: Config of the run, see configs/base.py.
        parts: Callables of data and models.
        workdir: Folder of the run; continued if it holds checkpoints.
        mode: "train", "eval", "train_and_eval" or "continuous_eval".
        strategy_name: Name of the strategy, see `engine.distributed.strategy.build_strategy`.
        tpu: Name or address of the TPU, see `build_strategy`.
        checkpoint: For "eval", the checkpoint to evaluate instead of the workdir's best one. For "continuous_eval", the
            workdir of the training to follow, if it is not this one.
        stop: Listens for signals; None = nothing does.
        weights: For "eval", the kind of weights, see `engine.checkpointing.restore.restore_weights`.

    Raises:
        ValueError: Config, data and workdir do not fit together; the message is one line for the user.
    """
    stop = stop or signals.StopOnSignal()
    validation.check_values(config)
    stop.within_secs = config.runtime.stop_within_secs
    strategy = _build_strategy(config, mode, strategy_name, tpu)
    arguments = {"config": config, "workdir": workdir, "strategy": strategy}
    if mode == "continuous_eval":
        metrics = continuous_eval.run(**arguments, parts=parts, checkpoint=checkpoint)
        return Outcome(0, metrics, storage.join(workdir, continuous_eval.FOLDER))
    with contextlib.ExitStack() as stack:
        stack.enter_context(explained_loss(strategy))
        stack.enter_context(workdirs.storage_faults(workdir))
        if cluster.is_chief(strategy):  # the other workers only read the folder
            stack.enter_context(workdirs.WorkdirLock(workdir))
        if mode == "eval":
            metrics, folder = eval.run(**arguments, parts=parts, checkpoint=checkpoint, weights=weights)
            return Outcome(0, metrics, folder)
        return train.run(_prepare(**arguments, parts=parts, evaluate=mode == "train_and_eval", stop=stop))


def _build_strategy(config: ConfigDict, mode: str, name: str, tpu: str) -> tf.distribute.Strategy:
    """Builds the strategy and checks that the config fits it."""
    runtime.configure_devices(
        num_virtual_devices=config.runtime.num_virtual_devices,
        # Runs of older versions have no such field.
        deterministic=config.runtime.get("deterministic", False),
    )
    strategy = runtime.build_strategy(
        name,
        tpu=tpu,
        start_secs=config.runtime.cluster_start_secs,
        heartbeat_secs=config.runtime.heartbeat_secs,
    )
    if runtime.is_tpu(strategy):
        validation.check_tpu(config)
    validation.check_fields(config)
    if mode in _TRAINING_MODES and config.train.num_updates:
        builders.build_learning_rate(config)  # refuses contradictory fields
    return strategy


def _prepare(
    *,
    config: ConfigDict,
    parts: Components,
    workdir: str,
    strategy: tf.distribute.Strategy,
    evaluate: bool,
    stop: signals.StopOnSignal,
) -> PreparedRun:
    """Opens the data, completes and checks the config, builds the model and claims the workdir, in this order.

    Nothing is written before everything that can fail has succeeded.
    """
    checkpoints = layout.list_checkpoints(storage.join(workdir, layout.CHECKPOINTS_FOLDER))
    run_before = workdir if checkpoints else ""
    # A continued run does not need its initial weights again, which may be gone.
    init = "" if run_before else parts.fetch_weights(config.model.init)
    validation.check_inputs(config, init, evaluate=evaluate)
    config, train_data, tokenizer = _open_train_data(config, parts, init=init, run_before=run_before)
    parts = builders.with_blank(parts, tokenizer)
    validation.check_frozen(config, is_fresh=not run_before)
    if init:
        validation.check_adaptation(config, init)
    builders.build_learning_rate(config)
    num_replicas = strategy.num_replicas_in_sync
    eval_data = builders.build_eval_data(config, parts, tokenizer, num_replicas=num_replicas) if evaluate else {}
    if init and config.model.init_head:
        validation.check_head(init, tokenizer=tokenizer, build_tokenizer=parts.build_tokenizer)
    init = find_checkpoint(init) if init else ""
    with strategy.scope():
        model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    validation.check_losses(config, model)
    validation.check_row_lengths(config, model.max_training_samples)
    if not run_before:  # a continued run has passed this check
        builders.run_preflight(config, parts, tokenizer, model, train_data, eval_data)
    cluster.check_same(strategy, "the config", json.dumps(config.to_dict(), sort_keys=True))
    is_chief = cluster.is_chief(strategy)
    run_id = ""
    if is_chief:
        row_secs = row_length.row_secs_to_record(config, row_secs=train_data.row_secs, init=init, run=run_before)
        run_id = _claim_workdir(
            workdir, config, tokenizer, model, init=init, checkpoints=checkpoints, row_secs=row_secs
        )
    return PreparedRun(
        config=config,
        parts=parts,
        workdir=workdir,
        strategy=strategy,
        is_chief=is_chief,
        model=model,
        tokenizer=tokenizer,
        train_data=train_data,
        eval_data=eval_data,
        init=init,
        run_id=run_id,
        stop=stop,
    )


def _open_train_data(
    config: ConfigDict, parts: Components, *, init: str, run_before: str
) -> tuple[ConfigDict, TrainData, Tokenizer]:
    """Opens the training data; returns the config with what follows from it, and the tokenizer of the run."""
    tokenizer = None  # built from the training texts
    if config.data.vocab not in fields_of_run.VOCAB_UNITS:
        tokenizer = parts.build_tokenizer(config.data.vocab)
    elif run_before:
        tokenizer = parts.build_tokenizer(storage.join(run_before, layout.VOCAB_FILE))
    if run_before:
        config = fields_of_run.with_text_normalization(
            recorded_run.with_recorded_masks(config, run=run_before), run=run_before
        )
    # Before the data: the architecture decides whether recordings are normalized.
    config = fields_of_run.with_architecture(config, parts, init=init, run=run_before)
    train_data = builders.build_train_data(config, parts, tokenizer)
    tokenizer = tokenizer or train_data.tokenizer
    if run_before:
        validation.check_same_vocabulary(run_before, tokenizer=tokenizer, build_tokenizer=parts.build_tokenizer)
    return fields_of_run.with_data(config, train_data, run=run_before), train_data, tokenizer


def _claim_workdir(
    workdir: str,
    config: ConfigDict,
    tokenizer: Tokenizer,
    model: AcousticModel,
    *,
    init: str,
    checkpoints: Sequence[str],
    row_secs: float | None,
) -> str:
    """Checks the config of a continued run, then writes the first files of the run; returns its id."""
    is_fresh = not checkpoints
    if not is_fresh:
        step = layout.checkpoint_number(checkpoints[-1]) or 0
        moved = [f"data.more_train.{name}.input" for name in config.data.get("more_train", {})]
        workdirs.save_config(
            workdir,
            config.to_dict(),
            allowed=(*RESUMABLE_FIELDS, *moved),
            later=recorded_run.list_later_fields(config),
            may_change=lambda before: (
                *validation.check_longer(before, config, workdir=workdir, step=step),
                *MEMORY_FIELDS,
            ),
        )
    run_id = identity.begin_run(workdir, is_fresh=is_fresh, keep=init)
    if is_fresh:
        workdirs.save_config(workdir, config.to_dict(), replace=True)
    workdirs.write_environment(
        workdir,
        num_parameters=count_parameters(model.variables),
        num_trained=count_parameters(model.trainable_variables),
        trained_row_secs=row_secs,
    )
    continuous_eval.mark_running(workdir)
    tokenizer.save(storage.join(workdir, layout.VOCAB_FILE))
    return run_id
