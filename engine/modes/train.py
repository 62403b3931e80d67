"""`--mode=train` and `--mode=train_and_eval`: trains a prepared run until its end or a stop."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import orbit
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from engine.actions import assembly, writers
from engine.actions.early_stopping import StopEarly
from engine.actions.unreadable_rows import UnreadableRowGuard
from engine.checkpointing import provenance
from engine.checkpointing.follower import FollowingCheckpoints
from engine.checkpointing.manager import CheckpointManager
from engine.checkpointing.restore import restore_model
from engine.common.signals import StopOnSignal, StopTraining
from engine.config import builders, plan
from engine.console import startup
from engine.console.training_log import TrainingLog, without_orbit_prints
from engine.distributed import cluster, preemption
from engine.distributed import strategy as runtime
from engine.evaluation.evaluator import EvaluatorGroup
from engine.modes import continuous_eval
from engine.protocols import AcousticModel, Components, EvalData, Tokenizer, TrainData
from engine.training.ema import EmaWeights
from engine.training.outer_loop import evaluation_at, train_and_evaluate
from engine.training.trainer import Trainer
from engine.workdir.identity import RunFiles


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        exit_status: 0 when done; 143, 130 or 129 when stopped by a signal, with everything saved.
        metrics: The last evaluation, {set: {name: value}}; empty without one.
    """

    exit_status: int
    metrics: dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A training run whose config is complete and checked, and whose data and model are ready.

    Attributes:
        config: Config with everything filled in that follows from data and weights.
        components: Callables of data and models.
        workdir: Folder of the run.
        strategy: Strategy to train under.
        is_chief: Whether this process writes the workdir.
        model: The model; its variables exist.
        tokenizer: Tokenizer of the run.
        train_data: Training data.
        eval_data: Evaluation sets by name; empty if nothing is evaluated.
        init: Checkpoint to start from; "" = random weights.
        run_id: Id of the run; "" on workers that are not the chief.
        stop: Listens for signals.
    """

    config: ConfigDict
    components: Components
    workdir: str
    strategy: tf.distribute.Strategy
    is_chief: bool
    model: AcousticModel
    tokenizer: Tokenizer
    train_data: TrainData
    eval_data: dict[str, EvalData]
    init: str
    run_id: str
    stop: StopOnSignal

    def path(self, name: str) -> str:
        """Returns the path of a file or folder in the workdir."""
        return storage.join(self.workdir, name)


class _Hooks:
    """Lets a signal end the run between updates and between evaluation batches.

    Attributes:
        trainer, log: Set once they exist, before the first update.
        leave: Raises StopTraining between updates if a signal has come.
        abandon: Raises StopTraining between evaluation batches if a signal has come.
    """

    trainer: Trainer
    log: TrainingLog

    def __init__(self, stop: StopOnSignal) -> None:
        self._stop = stop
        self.leave: Callable[[], None] = stop
        self.abandon: Callable[[], None] = stop

    def check_signal(self, output: object = None) -> None:
        del output
        self.trainer.settle()
        # There is an update to save now; before that, a signal ends the process at once.
        self._stop.defer()
        self.leave()

    def between_updates(self) -> None:
        self.log.after_update()
        self.check_signal()

    def between_batches(self) -> None:
        self.abandon()


def run(prepared: PreparedRun) -> Outcome:
    """Trains, and evaluates if there are evaluation sets, from the newest checkpoint or from the initial weights."""
    config, strategy, hooks = prepared.config, prepared.strategy, _Hooks(prepared.stop)
    with strategy.scope():
        global_step = orbit.utils.create_global_step()
        hooks.trainer = trainer = builders.build_trainer(
            config,
            prepared.components,
            strategy=strategy,
            model=prepared.model,
            train_data=prepared.train_data,
            global_step=global_step,
            between_updates=hooks.between_updates,
            blank_id=prepared.tokenizer.blank_id,
        )
        evaluators = _build_evaluators(prepared, hooks)
    run_files = RunFiles(prepared.workdir, prepared.run_id, global_step)
    guard = UnreadableRowGuard(
        max_bad_share=config.data.max_bad_share,
        rows_per_epoch=prepared.train_data.rows_per_epoch,
        global_step=global_step,
    )
    manager = _build_manager(prepared, trainer, guard, run_files)
    actions = assembly.build_actions(
        run_files=run_files,
        options=_action_options(config),
        trainer=trainer,
        train_data=prepared.train_data,
        evaluators=evaluators,
        make_report=builders.report_maker(config, prepared.components),
        guard=guard,
        is_chief=prepared.is_chief,
        check_signal=hooks.check_signal,
        stop=prepared.stop,
    )
    hooks.log = actions.log
    controller = _build_controller(prepared, trainer, evaluators, manager, actions)
    # The controller has restored.
    last_stop = _settle_records(prepared, int(global_step.numpy()))
    cluster.check_same(strategy, "restored update", str(int(global_step.numpy())))
    _prepare_stop(prepared, hooks, manager, global_step)
    step = int(global_step.numpy())
    startup.log_startup(
        strategy=strategy,
        model=prepared.model,
        loaded=plan.initialized_variables(config, prepared.model),
        precision=config.train.precision,
        plan=plan.describe_plan(config, prepared.train_data, num_replicas=strategy.num_replicas_in_sync),
        step=step,
        num_updates=config.train.num_updates,
        last_stop=last_stop,
    )
    if step >= config.train.num_updates:
        logging.warning("%s", plan.describe_finished(config, workdir=prepared.workdir, step=step))
    return _run_loop(prepared, controller, actions, trainer, evaluators, manager)


def _build_evaluators(prepared: PreparedRun, hooks: _Hooks) -> EvaluatorGroup | None:
    if not prepared.eval_data:
        return None
    return builders.build_evaluators(
        prepared.config,
        prepared.components,
        strategy=prepared.strategy,
        model=prepared.model,
        tokenizer=prepared.tokenizer,
        eval_data=prepared.eval_data,
        between_batches=hooks.between_batches,
        ema=hooks.trainer.ema,
    )


def _build_manager(
    prepared: PreparedRun, trainer: Trainer, guard: UnreadableRowGuard, run_files: RunFiles
) -> CheckpointManager | FollowingCheckpoints:
    """Builds the checkpoint manager of this worker; the chief's decides what all workers restore."""
    config = prepared.config
    state = tf.train.Checkpoint(
        model=prepared.model,
        optimizer=trainer.optimizer,
        global_step=trainer.global_step,
        skip_counter=trainer.skip_counter,
        statistics=trainer.statistics,
        data_digest=trainer.data_digest,
        bad_rows=guard.counts,
    )
    if trainer.loss_scale is not None:
        state.loss_scale = trainer.loss_scale
    if trainer.ema is not None:
        state.ema = trainer.ema
    about = provenance.describe(config=config.to_dict(), data=prepared.train_data.fingerprint, run_id=prepared.run_id)

    def initialize() -> None:
        _initialize(prepared.model, prepared.init, with_head=config.model.init_head, ema=trainer.ema)

    manager = None
    if prepared.is_chief:
        manager = CheckpointManager(
            checkpoint=state,
            directory=prepared.path(layout.CHECKPOINTS_FOLDER),
            global_step=trainer.global_step,
            every_updates=config.checkpoint.every_updates,
            keep=config.checkpoint.keep,
            init_fn=initialize,
            about=about,
            check_origin=lambda path: provenance.check(path, layout.read_manifest(path), about),
            in_background=config.checkpoint.background and runtime.is_one_host(prepared.strategy),
            before_writing=run_files,
        )
    found = cluster.gather_texts(prepared.strategy, (manager and manager.latest_checkpoint) or "")[0]
    return manager or FollowingCheckpoints(checkpoint=state, path=found, init_fn=initialize)


def _initialize(model: AcousticModel, init: str, *, with_head: bool, ema: EmaWeights | None = None) -> None:
    """Starts from initial weights; called by the controller if there is no checkpoint to continue from."""
    if init:
        path = restore_model(model, init, leave_out=() if with_head else ("head",))
        logging.info("started from %s, %s", path, "head included" if with_head else "with a fresh head")
    if ema is not None:
        ema.reset()


def _action_options(config: ConfigDict) -> assembly.ActionOptions:
    return assembly.ActionOptions(
        num_updates=config.train.num_updates,
        quiet_updates=max(builders.build_learning_rate(config).warmup_updates, config.model.freeze_encoder_updates),
        eval_every=config.eval.every_updates,
        best_metric_set=config.eval.best_of,
        patience=config.eval.early_stopping_patience,
    )


def _build_controller(
    prepared: PreparedRun,
    trainer: Trainer,
    evaluators: EvaluatorGroup | None,
    manager: CheckpointManager | FollowingCheckpoints,
    actions: assembly.LoopActions,
) -> orbit.Controller:
    """Builds the controller, which restores the newest checkpoint."""
    summary_dir = prepared.path(layout.TENSORBOARD_FOLDER) if prepared.is_chief else None
    log_every = prepared.config.train.log_every_updates
    with without_orbit_prints():
        return orbit.Controller(
            strategy=prepared.strategy,
            global_step=trainer.global_step,
            trainer=trainer,
            evaluator=evaluators,
            # To the next multiple: a resumed run ends an interrupted loop where it would have ended.
            steps_per_loop=lambda step: int(log_every - step % log_every),
            checkpoint_manager=manager,
            summary_dir=summary_dir,
            eval_summary_dir=summary_dir,
            train_actions=actions.after_updates,
            eval_actions=actions.after_evaluation,
        )


def _settle_records(prepared: PreparedRun, step: int) -> str:
    """Removes what the last process wrote past its checkpoint; returns how that process ended."""
    if not prepared.is_chief:
        return ""
    metrics_path = prepared.path(layout.METRICS_FILE)
    note, reached = startup.take_stop_note(prepared.workdir), writers.last_step(metrics_path)
    writers.truncate_metrics(metrics_path, step)
    return startup.describe_last_stop(note, step=step, reached=reached) if step else ""


def _prepare_stop(
    prepared: PreparedRun,
    hooks: _Hooks,
    manager: CheckpointManager | FollowingCheckpoints,
    global_step: tf.Variable,
) -> None:
    """Lets several workers stop together, and lets a process out of time note why it stops and rescue its state."""
    strategy, stop = prepared.strategy, prepared.stop
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        with_all = preemption.SaveAllIfPreempted(
            cluster_resolver=strategy.cluster_resolver,
            manager=manager,
            global_step=global_step,
            stop=stop,
            any_worker=cluster.AnyWorker(strategy),
        )
        hooks.leave, hooks.abandon = with_all, with_all.between_batches
    if prepared.is_chief:
        stop.note = lambda what: startup.note_stop(prepared.workdir, reason=what, step=int(global_step.numpy()))
    if isinstance(manager, CheckpointManager) and runtime.is_one_host(strategy):

        def rescue() -> None:
            if (path := manager.save_from_beside(hooks.trainer.settled_version)) is not None:
                logging.warning("saved checkpoint to %s while an update or evaluation is running", path)

        stop.rescue = rescue
        stop.rescue_secs = lambda: manager.expected_save_secs


def _run_loop(
    prepared: PreparedRun,
    controller: orbit.Controller,
    actions: assembly.LoopActions,
    trainer: Trainer,
    evaluators: EvaluatorGroup | None,
    manager: CheckpointManager | FollowingCheckpoints,
) -> Outcome:
    """Runs the outer loop and leaves the workdir ready for the next process, whatever ends it."""
    num_updates, stop = prepared.config.train.num_updates, prepared.stop
    metrics_path = prepared.path(layout.METRICS_FILE)
    metrics: dict[str, dict[str, float]] = {}

    def disarm() -> None:
        stop.rescue = stop.note = None

    with contextlib.ExitStack() as stack:
        stack.callback(disarm)
        stack.callback(trainer.release_data)
        stack.enter_context(actions.log)
        stack.enter_context(without_orbit_prints())
        if isinstance(manager, CheckpointManager):
            stack.enter_context(manager)  # waits for the last save
        try:
            actions.early.begin()
            if evaluators is None:
                controller.train(num_updates)
            else:
                metrics = train_and_evaluate(
                    controller,
                    num_updates=num_updates,
                    every_updates=prepared.config.eval.every_updates,
                    metrics_path=metrics_path,
                    sets=evaluators.names,
                    set_digests={name: data.digest for name, data in evaluators.data.items()},
                )
        except StopEarly as reason:
            controller.save_checkpoint()
            step = int(trainer.global_step.numpy())
            logging.info("%s; ended at update %d", reason, step)
            if prepared.is_chief:
                continuous_eval.mark_finished(prepared.workdir, step=step, reason=str(reason))
            sets = evaluators.names if evaluators is not None else ()
            return Outcome(exit_status=stop.exit_status, metrics=evaluation_at(metrics_path, step, sets))
        except StopTraining as reason:
            if prepared.is_chief:
                actions.report_unreadable()
            controller.save_checkpoint()
            step = int(trainer.global_step.numpy())
            logging.warning("%s; saved at update %d", reason, step)
            if prepared.is_chief and stop.exit_status:
                startup.note_stop(prepared.workdir, reason=str(reason).removeprefix("stopped by "), step=step)
            return Outcome(exit_status=stop.exit_status or 2, metrics={})
    if prepared.is_chief:
        ending = f"training has done its {num_updates} updates"
        continuous_eval.mark_finished(prepared.workdir, step=int(trainer.global_step.numpy()), reason=ending)
    return Outcome(exit_status=0, metrics=metrics or {})
