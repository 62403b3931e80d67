"""One run, from config to last checkpoint: builds orbit.Controller around the parts that `unpack` makes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator

import orbit
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from engine.actions import assembly, early_stopping, unreadable_rows, writers
from engine.checkpointing import follower, provenance
from engine.checkpointing import manager as checkpoints
from engine.common import signals
from engine.config import builders, validation
from engine.console import startup
from engine.console.model_summary import count_parameters
from engine.console.training_log import without_orbit_prints
from engine.distributed import cluster, preemption
from engine.distributed import strategy as runtime
from engine.modes import continuous_eval
from engine.protocols import AcousticModel, EvalData, Parts, Tokenizer, TrainData
from engine.training.ema import EmaWeights, restore_weights
from engine.training.outer_loop import evaluation_at, train_and_evaluate
from engine.training.trainer import Trainer
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
    "checkpoint",
    "data.eval",
    "data.train.input",  # the corpus may have moved; its fingerprint is compared
    "data.num_parallel_calls",
    "data.prefetch_batches",
    "data.max_bad_share",
    "data.make_command",
    "data.allow_leak",
    "data.doctor_max_hours",
    "train.log_every_updates",
    "train.max_skipped_in_a_row",
)
# Fields that older configs do not have, and what these stand for.
LATER_FIELDS = {
    "train.warmup_ratio": 0.0,
    "train.hold_ratio": 0.0,
    "train.num_epochs": 0.0,
    "data.train.held_out_ratio": 0.0,
}
# Parts of a checkpoint that older versions did not save; a run of theirs goes on all the same.
_LATER_PARTS = ("statistics", "data_digest", "bad_rows", "skip_counter", preemption.CHECKPOINT_PART)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        exit_status: 0 done; 143, 130 or 129 stopped by a signal with everything saved.
        figures: The last evaluation, {set: {name: value}}; empty without one.
    """

    exit_status: int
    figures: dict[str, dict[str, float]]


def run(
    *,
    config: ConfigDict,
    parts: Parts,
    workdir: str,
    mode: str,
    strategy_name: str = "auto",
    tpu: str = "",
    checkpoint: str = "",
    stop: signals.StopOnSignal | None = None,
    weights: str = "",
) -> Outcome:
    """Trains, evaluates, or both, and leaves the results in `workdir`.

    Args:
        config: As configs/base.py.
        parts: What data and models contribute.
        workdir: Folder of the run; continued if it holds checkpoints.
        mode: "train", "eval", "train_and_eval" or "continuous_eval".
        strategy_name: As `runtime.build_strategy`; so is tpu.
        tpu: See strategy_name.
        checkpoint: For "eval": what to evaluate instead of the workdir's best checkpoint. For
            "continuous_eval": the workdir of the training to follow, if it is not this one.
        weights: For "eval": as `engine.training.ema.restore_weights`.
        stop: What hears the signals; None = nobody does.

    Raises:
        ValueError: One line for the user: something in the config, the data or the workdir does not fit.
    """
    stop = stop or signals.StopOnSignal()
    validation.check_values(config)
    # Runs from before there was the field do not have it.
    stop.within_secs = config.runtime.get("stop_within_secs", stop.within_secs)
    runtime.configure_devices(num_virtual_devices=config.runtime.num_virtual_devices)
    strategy = runtime.build_strategy(
        strategy_name,
        tpu=tpu,
        start_secs=config.runtime.cluster_start_secs,
        heartbeat_secs=config.runtime.heartbeat_secs,
    )
    is_chief = cluster.is_chief(strategy)
    if runtime.is_tpu(strategy):
        validation.check_tpu(config)
    validation.check_fields(
        config, num_replicas=strategy.num_replicas_in_sync, trains=mode in ("train", "train_and_eval")
    )
    if mode in ("train", "train_and_eval") and config.train.num_updates:
        builders.build_learning_rate(config)  # refuses what does not fit together
    if mode == "continuous_eval":
        return _evaluate_continuously(
            config=config, parts=parts, workdir=workdir, strategy=strategy, checkpoint=checkpoint
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(follower.explained_loss(strategy))
        stack.enter_context(workdirs.storage_faults(workdir))
        if is_chief:  # the other workers read the folder and write nothing
            stack.enter_context(workdirs.WorkdirLock(workdir))
        if mode == "eval":
            return _evaluate(
                config=config,
                parts=parts,
                workdir=workdir,
                strategy=strategy,
                checkpoint=checkpoint,
                weights=weights,
            )
        # The first thing that can fail for reasons of its own is the data: nothing is written before it was read.
        saved = layout.list_checkpoints(storage.join(workdir, layout.CHECKPOINTS_FOLDER))
        is_fresh = not saved
        # Weights to start from are not needed again: a run can be continued where they are gone.
        init = parts.fetch_weights(config.model.init) if is_fresh else ""
        evaluate = mode == "train_and_eval"
        validation.check_inputs(config, init, evaluate=evaluate)
        run_before = "" if is_fresh else workdir
        if run_before:
            config = builders.with_text_style(config, run=run_before)
        tokenizer = None  # made of the training texts
        if config.data.vocab != builders.AUTO:
            tokenizer = parts.build_tokenizer(config.data.vocab)
        elif run_before:
            tokenizer = parts.build_tokenizer(storage.join(workdir, layout.VOCAB_FILE))
        # Before the data: the model's architecture says whether it hears recordings normalized.
        config = builders.with_architecture(config, parts, init=init, run=run_before)
        train_data = builders.build_train_data(config, parts, tokenizer)
        if tokenizer is None:
            tokenizer = train_data.tokenizer
        if run_before:
            validation.check_same_vocabulary(workdir, tokenizer=tokenizer, build_tokenizer=parts.build_tokenizer)
        parts = builders.with_blank(parts, tokenizer)
        config = builders.with_data(config, train_data, run=run_before)
        validation.check_frozen(config, is_fresh=is_fresh)
        builders.build_learning_rate(config)
        num_replicas = strategy.num_replicas_in_sync
        evaluators = builders.build_eval_data(config, parts, tokenizer, num_replicas=num_replicas) if evaluate else {}
        if init and config.model.init_head:
            validation.check_head(init, tokenizer=tokenizer, build_tokenizer=parts.build_tokenizer)
        init = checkpoints.find_checkpoint(init) if init else ""
        with strategy.scope():
            model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
        validation.check_row_lengths(config, model.max_training_samples)
        if is_fresh:  # a continued run has passed, and should not wait
            builders.run_preflight(config, parts, tokenizer, model, train_data, evaluators)
        cluster.check_same(strategy, "the config", json.dumps(config.to_dict(), sort_keys=True))
        run_id = ""
        if is_chief:
            if not is_fresh:  # refused before anything is written
                workdirs.save_config(
                    workdir,
                    config.to_dict(),
                    allowed=RESUMABLE_FIELDS,
                    later=LATER_FIELDS,
                    may_change=lambda before: validation.check_longer(
                        before, config, workdir=workdir, step=int(saved[-1].rpartition("-")[2])
                    ),
                )
            run_id = identity.begin_run(workdir, is_fresh=is_fresh, keep=init)
            if is_fresh:
                workdirs.save_config(workdir, config.to_dict(), replace=True)
            workdirs.write_environment(
                workdir,
                num_parameters=count_parameters(model.variables),
                num_trained=count_parameters(model.trainable_variables),
            )
            continuous_eval.mark_running(workdir)
            tokenizer.save(storage.join(workdir, layout.VOCAB_FILE))
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
            run_id=run_id,
            stop=stop,
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
    eval_data: dict[str, EvalData],
    init: str,
    run_id: str,
    stop: signals.StopOnSignal,
) -> Outcome:
    def check_signal(output: object = None) -> None:
        trainer.settle()
        # An update is done, so there is something to save; before that a signal needs to wait for nothing.
        stop.defer()
        leave()

    def check_signal_in_evaluation() -> None:
        abandon()

    def between_updates() -> None:
        todo.log.after_update()
        check_signal()

    leave: Callable[[], None] = stop
    abandon: Callable[[], None] = stop
    with strategy.scope():
        global_step = orbit.utils.create_global_step()
        trainer = builders.build_trainer(
            config,
            parts,
            strategy=strategy,
            model=model,
            train_data=train_data,
            global_step=global_step,
            between_updates=between_updates,
            blank_id=tokenizer.blank_id,
        )
        evaluators = (
            builders.build_evaluators(
                config,
                parts,
                strategy=strategy,
                model=model,
                tokenizer=tokenizer,
                eval_data=eval_data,
                between_batches=check_signal_in_evaluation,
                ema=trainer.ema,
            )
            if eval_data
            else None
        )

    guard = unreadable_rows.BadRowGuard(
        max_bad_share=config.data.max_bad_share, rows_per_epoch=train_data.rows_per_epoch, global_step=global_step
    )
    state = tf.train.Checkpoint(
        model=model,
        optimizer=trainer.optimizer,
        global_step=global_step,
        skip_counter=trainer.skip_counter,
        statistics=trainer.statistics,
        data_digest=trainer.data_digest,
        bad_rows=guard.counts,
    )
    if trainer.loss_scale is not None:
        state.loss_scale = trainer.loss_scale
    about = provenance.describe(config=config.to_dict(), data=train_data.fingerprint, run_id=run_id)
    if trainer.ema is not None:
        state.ema = trainer.ema
    is_chief = cluster.is_chief(strategy)

    def initialize() -> None:
        _initialize(model, init, with_head=config.model.init_head, ema=trainer.ema)

    manager: checkpoints.CheckpointManager | follower.FollowingCheckpoints | None = None
    if is_chief:
        manager = checkpoints.CheckpointManager(
            checkpoint=state,
            directory=storage.join(workdir, layout.CHECKPOINTS_FOLDER),
            global_step=global_step,
            every_updates=config.checkpoint.every_updates,
            keep=config.checkpoint.keep,
            init_fn=initialize,
            about=about,
            check_origin=lambda path: provenance.check(path, layout.read_manifest(path), about),
            optional=_LATER_PARTS,
            in_background=config.checkpoint.background and runtime.is_one_host(strategy),
            before_writing=identity.RunFiles(workdir, run_id, global_step),
        )
    found = cluster.gather_texts(strategy, (manager and manager.latest_checkpoint) or "")[0]
    if manager is None:
        manager = follower.FollowingCheckpoints(checkpoint=state, path=found, init_fn=initialize, optional=_LATER_PARTS)
    metrics_path = storage.join(workdir, layout.METRICS_FILE)
    todo = assembly.build_actions(
        workdir=workdir,
        metrics_path=metrics_path,
        global_step=global_step,
        num_updates=config.train.num_updates,
        eval_every=config.eval.every_updates,
        quiet_updates=max(builders.build_learning_rate(config).warmup_updates, config.model.freeze_encoder_updates),
        trainer=trainer,
        model=model,
        train_data=train_data,
        evaluators=evaluators,
        best_of=config.eval.best_of,
        patience=config.eval.early_stopping_patience,
        make_report=builders.report_maker(config, parts),
        guard=guard,
        is_chief=is_chief,
        run_id=run_id,
        check_signal=check_signal,
        stop=stop,
    )
    summary_dir = storage.join(workdir, layout.TENSORBOARD_FOLDER) if is_chief else None
    log_every = config.train.log_every_updates
    with without_orbit_prints():
        controller = orbit.Controller(
            strategy=strategy,
            global_step=global_step,
            trainer=trainer,
            evaluator=evaluators,
            # To the next multiple: a run that was stopped within a loop ends that loop where it would have ended.
            steps_per_loop=lambda step: int(log_every - step % log_every),
            checkpoint_manager=manager,
            summary_dir=summary_dir,
            eval_summary_dir=summary_dir,
            train_actions=todo.after_updates,
            eval_actions=todo.after_evaluation,
        )
    # The controller has restored by now; lines that a killed process wrote past its checkpoint will be written again.
    step, last_stop = int(global_step.numpy()), ""
    if is_chief:
        note, reached = startup.take_stop_note(workdir), writers.last_step(metrics_path)
        last_stop = startup.describe_last_stop(note, step=step, reached=reached) if step else ""
        writers.truncate_metrics(metrics_path, step)
    cluster.check_same(strategy, "restored update", str(int(global_step.numpy())))
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        with_all = preemption.SaveAllIfPreempted(
            cluster_resolver=strategy.cluster_resolver,
            manager=manager,
            global_step=global_step,
            stop=stop,
            any_worker=cluster.AnyWorker(strategy),
        )
        leave, abandon = with_all, with_all.between_batches
    startup.log_startup(
        config, strategy=strategy, model=model, data=train_data, step=step, workdir=workdir, last_stop=last_stop
    )
    if is_chief:
        stop.note = lambda what: startup.note_stop(workdir, reason=what, step=int(global_step.numpy()))
    if isinstance(manager, checkpoints.CheckpointManager) and runtime.is_one_host(strategy):
        stop.rescue = lambda: _save_from_beside(manager, trainer)
        stop.rescue_secs = lambda: manager.expected_save_secs

    figures: dict[str, dict[str, float]] = {}
    # Left only when the last save is whole, whatever ends the training.
    with (
        _nothing_to_rescue_behind(stop),
        _data_released_behind(trainer),
        todo.log,
        without_orbit_prints(),
        manager if isinstance(manager, checkpoints.CheckpointManager) else contextlib.nullcontext(),
    ):
        try:
            todo.early.begin()
            if evaluators is None:
                controller.train(config.train.num_updates)
            else:
                figures = train_and_evaluate(
                    controller,
                    num_updates=config.train.num_updates,
                    every_updates=config.eval.every_updates,
                    metrics_path=metrics_path,
                    sets=evaluators.names,
                    set_digests={name: data.digest for name, data in evaluators.data.items()},
                )
        except early_stopping.StopEarly as reason:
            controller.save_checkpoint()
            step = int(global_step.numpy())
            logging.info("%s; ended at update %d", reason, step)
            if is_chief:
                continuous_eval.mark_finished(workdir, step=step, reason=str(reason))
            assert evaluators is not None  # without them nobody stops early
            return Outcome(exit_status=stop.exit_status, figures=evaluation_at(metrics_path, step, evaluators.names))
        except signals.StopTraining as reason:
            if is_chief:
                todo.report_unreadable()
            controller.save_checkpoint()
            step = int(global_step.numpy())
            logging.warning("%s; saved at update %d", reason, step)
            if is_chief and stop.exit_status:
                startup.note_stop(workdir, reason=str(reason).removeprefix("stopped by "), step=step)
            return Outcome(exit_status=stop.exit_status or 2, figures={})
    if is_chief:
        ending = f"training has done its {config.train.num_updates} updates"
        continuous_eval.mark_finished(workdir, step=int(global_step.numpy()), reason=ending)
    return Outcome(exit_status=0, figures=figures or {})


@contextlib.contextmanager
def _nothing_to_rescue_behind(stop: signals.StopOnSignal) -> Iterator[None]:
    """Sees to it that no thread saves or writes notes once a training is over."""
    try:
        yield
    finally:
        stop.rescue = stop.note = None


@contextlib.contextmanager
def _data_released_behind(trainer: Trainer) -> Iterator[None]:
    """Ends the input pipeline with the training."""
    try:
        yield
    finally:
        trainer.release_data()


def _save_from_beside(manager: checkpoints.CheckpointManager, trainer: Trainer) -> None:
    """Saves what is done while the main thread is in an update that takes longer than there is time."""
    if (path := manager.save_from_beside(trainer.settled_version)) is not None:
        logging.warning("saved checkpoint to %s, while the update or evaluation after it goes on", path)


def _evaluate_continuously(
    *, config: ConfigDict, parts: Parts, workdir: str, strategy: tf.distribute.Strategy, checkpoint: str
) -> Outcome:
    """Follows a training in another process; see `engine.modes.continuous_eval`."""
    if not config.data.eval:
        raise ValueError("--mode=continuous_eval needs at least one set under config.data.eval")
    training_workdir, output = checkpoint or workdir, storage.join(workdir, continuous_eval.FOLDER)
    timeout_secs = config.eval.idle_timeout_secs
    with workdirs.storage_faults(output), workdirs.WorkdirLock(output):
        continuous_eval.wait_for_run(training_workdir, timeout_secs=timeout_secs)
        run_id = identity.find_run_id(training_workdir)
        identity.claim_output(output, run_id)
        config = builders.with_text_style(config, run=training_workdir)
        tokenizer = parts.build_tokenizer(storage.join(training_workdir, layout.VOCAB_FILE))
        parts = builders.with_blank(parts, tokenizer)
        config = builders.with_architecture(config, parts, run=training_workdir)
        eval_data = builders.build_eval_data(config, parts, tokenizer, num_replicas=strategy.num_replicas_in_sync)
        with strategy.scope():
            model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
            decay = config.train.ema_decay
            ema = EmaWeights(model.trainable_variables, decay=decay) if decay else None
            global_step = orbit.utils.create_global_step()
            evaluators = builders.build_evaluators(
                config, parts, strategy=strategy, model=model, tokenizer=tokenizer, eval_data=eval_data, ema=ema
            )
        figures = continuous_eval.evaluate_continuously(
            strategy=strategy,
            model=model,
            ema=ema,
            evaluators=evaluators,
            global_step=global_step,
            best_of=config.eval.best_of,
            training_workdir=training_workdir,
            output=output,
            run_id=run_id,
            idle_timeout_secs=timeout_secs,
            make_report=builders.report_maker(config, parts),
        )
    return Outcome(exit_status=0, figures=figures)


def _evaluate(
    *,
    config: ConfigDict,
    parts: Parts,
    workdir: str,
    strategy: tf.distribute.Strategy,
    checkpoint: str,
    weights: str,
) -> Outcome:
    tokenizer = builders.build_tokenizer(config, parts, workdir=workdir, checkpoint=checkpoint)
    parts = builders.with_blank(parts, tokenizer)
    config = builders.with_text_style(config, run=checkpoint or workdir)
    search = builders.build_search(config, parts, tokenizer)
    config = builders.with_architecture(config, parts, run=checkpoint or workdir)
    eval_data = builders.build_eval_data(config, parts, tokenizer, num_replicas=strategy.num_replicas_in_sync)
    if not eval_data:
        raise ValueError("--mode=eval needs at least one set under config.data.eval")
    with strategy.scope():
        model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
        path = restore_weights(model, checkpoint or workdir, weights=weights)
        global_step = orbit.utils.create_global_step()
        global_step.assign(checkpoints.step_of(path))
        evaluators = builders.build_evaluators(
            config, parts, strategy=strategy, model=model, tokenizer=tokenizer, eval_data=eval_data, search=search
        )
    logging.info("evaluating %s", path)
    is_chief = cluster.is_chief(strategy)
    output = identity.evaluation_folder(workdir, checkpoint) if is_chief else workdir
    writing_actions = [
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
            training_workdir=builders.run_folder(checkpoint) or output,
            global_step=global_step,
            data=evaluators.data,
        ),
    ]
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        evaluator=evaluators,
        eval_summary_dir=storage.join(output, layout.TENSORBOARD_FOLDER) if is_chief else None,
        eval_actions=writing_actions if is_chief else [],
    )
    return Outcome(exit_status=0, figures=controller.evaluate())


def _initialize(model: AcousticModel, init: str, *, with_head: bool, ema: EmaWeights | None = None) -> None:
    """Starts from other weights; called by the controller when there is no checkpoint to continue from."""
    if init:
        path = checkpoints.restore_model(model, init, leave_out=() if with_head else ("head",))
        logging.info("started from %s, %s", path, "head included" if with_head else "with a fresh head")
    if ema is not None:
        ema.reset()
