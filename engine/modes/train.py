"""Runs `--mode=train` and `--mode=train_and_eval`: trains a prepared run until its end or a signal."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

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
from engine.config import builders, fields_of_run, plan
from engine.config.compilation import describe_compilation
from engine.console import startup
from engine.console.training_log import without_orbit_prints
from engine.distributed import cluster, preemption
from engine.distributed import strategy as runtime
from engine.modes import continuous_eval
from engine.protocols import AcousticModel, Components, EvalData, Tokenizer, TrainData
from engine.training.ema import EmaWeights
from engine.training.outer_loop import evaluation_at, train_and_evaluate
from engine.workdir.identity import RunFiles


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        exit_status: 0 when done; 143, 130 or 129 when stopped by a signal, with everything saved.
        metrics: The last evaluation, {set: {name: value}}; empty without one.
        folder: The folder with the files of the evaluation; "" = the workdir.
    """

    exit_status: int
    metrics: dict[str, dict[str, float]]
    folder: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A training run whose config is complete and checked, and whose data and model are ready.

    Attributes:
        config: Config with the fields that data and weights decide filled in.
        parts: Callables of data and models.
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
    parts: Components
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


def run(prepared: PreparedRun) -> Outcome:
    """Trains, and evaluates if there are evaluation sets, from the newest checkpoint or from the initial weights."""
    session = _Session(prepared)
    session.restore()
    session.prepare_stop()
    return session.train()


class _Session:
    """A training run in this process.

    A signal ends it between updates and between evaluation batches: `_leave` and `_abandon` raise StopTraining then.
    """

    def __init__(self, prepared: PreparedRun) -> None:
        """Builds everything but the controller, which restores when it is built."""
        config, strategy = prepared.config, prepared.strategy
        self._prepared = prepared
        self._metrics_path = prepared.path(layout.METRICS_FILE)
        self._leave: Callable[[], None] = prepared.stop
        self._abandon: Callable[[], None] = prepared.stop
        with strategy.scope():
            self._global_step = orbit.utils.create_global_step()
            self._trainer = builders.build_trainer(
                config,
                prepared.parts,
                strategy=strategy,
                model=prepared.model,
                train_data=prepared.train_data,
                global_step=self._global_step,
                between_updates=self._between_updates,
                blank_id=prepared.tokenizer.blank_id,
            )
            self._evaluators = None
            if prepared.eval_data:
                self._evaluators = builders.build_evaluators(
                    config,
                    prepared.parts,
                    strategy=strategy,
                    model=prepared.model,
                    tokenizer=prepared.tokenizer,
                    eval_data=prepared.eval_data,
                    between_batches=lambda: self._abandon(),
                    ema=self._trainer.ema,
                )
        guard = UnreadableRowGuard(
            max_unreadable_ratio=config.data.max_unreadable_ratio,
            rows_per_epoch=prepared.train_data.rows_per_epoch,
            global_step=self._global_step,
        )
        run_files = RunFiles(prepared.workdir, prepared.run_id, self._global_step)
        self._manager = self._build_manager(guard, run_files)
        self._actions = assembly.build_actions(
            run_files=run_files,
            options=assembly.ActionOptions(
                num_updates=config.train.num_updates,
                quiet_updates=max(
                    builders.build_learning_rate(config).warmup_updates, config.model.freeze_encoder_updates
                ),
                eval_every=config.eval.every_updates,
                best_metric_set=config.eval.best_metric_set,
                patience=config.eval.early_stopping_patience,
                best_metric=fields_of_run.choose_best_metric(config, prepared.eval_data),
            ),
            trainer=self._trainer,
            train_data=prepared.train_data,
            evaluators=self._evaluators,
            make_report=builders.report_maker(config, prepared.parts),
            guard=guard,
            is_chief=prepared.is_chief,
            check_signal=self._check_signal,
            stop=prepared.stop,
        )

    def _build_manager(
        self, guard: UnreadableRowGuard, run_files: RunFiles
    ) -> CheckpointManager | FollowingCheckpoints:
        """Builds the checkpoint manager of this worker; the chief's decides what all workers restore."""
        prepared, trainer, config = self._prepared, self._trainer, self._prepared.config
        state = tf.train.Checkpoint(
            model=prepared.model,
            optimizer=trainer.optimizer,
            global_step=self._global_step,
            skip_counter=trainer.skip_counter,
            statistics=trainer.statistics,
            data_digest=trainer.data_digest,
            bad_rows=guard.counts,
        )
        if trainer.auxiliary_losses is not None:
            state.auxiliary_losses = trainer.auxiliary_losses
        if trainer.loss_scale is not None:
            state.loss_scale = trainer.loss_scale
        if trainer.ema is not None:
            state.ema = trainer.ema
        about = provenance.describe(
            config=config.to_dict(), data=prepared.train_data.fingerprint, run_id=prepared.run_id
        )

        def initialize() -> None:
            _initialize(
                prepared.model,
                prepared.init,
                with_head=config.model.init_head,
                may_lack=builders.list_adapted(config, prepared.model),
                ema=trainer.ema,
            )

        manager = None
        if prepared.is_chief:
            manager = CheckpointManager(
                checkpoint=state,
                directory=prepared.path(layout.CHECKPOINTS_FOLDER),
                global_step=self._global_step,
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

    def _check_signal(self, output: object = None) -> None:
        del output
        self._trainer.settle()
        # From now on there is an update to save; until then a signal ends the process at once.
        self._prepared.stop.defer()
        self._leave()

    def _between_updates(self) -> None:
        self._actions.log.after_update()
        self._check_signal()

    @property
    def _step(self) -> int:
        return int(self._global_step.numpy())

    def restore(self) -> None:
        """Builds the controller, which restores the newest checkpoint, and logs what it starts from."""
        prepared, config = self._prepared, self._prepared.config
        summary_dir = prepared.path(layout.TENSORBOARD_FOLDER) if prepared.is_chief else None
        log_every = config.train.log_every_updates
        with without_orbit_prints():
            self._controller = orbit.Controller(
                strategy=prepared.strategy,
                global_step=self._global_step,
                trainer=self._trainer,
                evaluator=self._evaluators,
                # To the next multiple: a resumed run ends an interrupted loop at the same update.
                steps_per_loop=lambda step: int(log_every - step % log_every),
                checkpoint_manager=self._manager,
                summary_dir=summary_dir,
                eval_summary_dir=summary_dir,
                train_actions=self._actions.after_updates,
                eval_actions=self._actions.after_evaluation,
            )
        cluster.check_same(prepared.strategy, "restored update", str(self._step))
        startup.log_startup(
            strategy=prepared.strategy,
            model=prepared.model,
            loaded=plan.initialized_variables(config, prepared.model),
            precision=config.train.precision,
            plan=[
                *plan.describe_plan(config, prepared.train_data, num_replicas=prepared.strategy.num_replicas_in_sync),
                *filter(
                    None,
                    [
                        plan.describe_adaptation(config, prepared.model),
                        describe_compilation(config, prepared.strategy),
                    ],
                ),
            ],
            step=self._step,
            num_updates=config.train.num_updates,
            last_stop=self._settle_records() if prepared.is_chief else "",
        )
        if self._step >= config.train.num_updates:
            logging.warning("%s", plan.describe_finished(config, workdir=prepared.workdir, step=self._step))

    def _settle_records(self) -> str:
        """Removes what the last process wrote past its checkpoint; returns how that process ended."""
        note, reached = startup.take_stop_note(self._prepared.workdir), writers.last_step(self._metrics_path)
        writers.truncate_metrics(self._metrics_path, self._step)
        return startup.describe_last_stop(note, step=self._step, reached=reached) if self._step else ""

    def prepare_stop(self) -> None:
        """Makes workers stop together, and lets a process that runs out of time record why and save its state."""
        strategy, stop, manager = self._prepared.strategy, self._prepared.stop, self._manager
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            with_all = preemption.SaveAllIfPreempted(
                cluster_resolver=strategy.cluster_resolver,
                manager=manager,
                global_step=self._global_step,
                stop=stop,
                any_worker=cluster.AnyWorker(strategy),
            )
            self._leave, self._abandon = with_all, with_all.between_batches
        if self._prepared.is_chief:
            stop.note = lambda what: startup.note_stop(self._prepared.workdir, reason=what, step=self._step)
        if isinstance(manager, CheckpointManager) and runtime.is_one_host(strategy):

            def rescue() -> None:
                if (path := manager.save_from_beside(self._trainer.settled_version)) is not None:
                    logging.warning("saved checkpoint to %s while an update or evaluation is running", path)

            stop.rescue, stop.rescue_secs = rescue, lambda: manager.expected_save_secs

    def train(self) -> Outcome:
        """Runs the outer loop and leaves the workdir ready for the next process, however it ends."""
        prepared, stop, num_updates = self._prepared, self._prepared.stop, self._prepared.config.train.num_updates
        with contextlib.ExitStack() as stack:
            stack.callback(_disarm, stop)
            stack.callback(self._trainer.release_data)
            stack.enter_context(self._actions.log)
            stack.enter_context(without_orbit_prints())
            if isinstance(self._manager, CheckpointManager):
                stack.enter_context(self._manager)  # waits for the last save
            try:
                self._actions.early.begin()
                metrics = self._run_loop(num_updates)
            except StopEarly as reason:
                self._controller.save_checkpoint()
                logging.info("%s; ended at update %d", reason, self._step)
                self._mark_finished(str(reason))
                sets = self._evaluators.names if self._evaluators is not None else ()
                return Outcome(stop.exit_status, evaluation_at(self._metrics_path, self._step, sets))
            except StopTraining as reason:
                if prepared.is_chief:
                    self._actions.report_unreadable()
                self._controller.save_checkpoint()
                logging.warning("%s; saved at update %d", reason, self._step)
                if prepared.is_chief and stop.exit_status:
                    why = str(reason).removeprefix("stopped by ")
                    startup.note_stop(prepared.workdir, reason=why, step=self._step)
                return Outcome(stop.exit_status or 2, {})
        self._mark_finished(f"training has done its {num_updates} updates")
        return Outcome(0, metrics or {})

    def _run_loop(self, num_updates: int) -> dict[str, dict[str, float]]:
        if self._evaluators is None:
            self._controller.train(num_updates)
            return {}
        return train_and_evaluate(
            self._controller,
            num_updates=num_updates,
            every_updates=self._prepared.config.eval.every_updates,
            metrics_path=self._metrics_path,
            sets=self._evaluators.names,
            set_digests={name: data.digest for name, data in self._evaluators.data.items()},
        )

    def _mark_finished(self, reason: str) -> None:
        if self._prepared.is_chief:
            continuous_eval.mark_finished(self._prepared.workdir, step=self._step, reason=reason)


def _initialize(
    model: AcousticModel,
    init: str,
    *,
    with_head: bool,
    may_lack: Sequence[tf.Variable] = (),
    ema: EmaWeights | None = None,
) -> None:
    """Starts from initial weights; called by the controller if there is no checkpoint to continue from."""
    if init:
        path = restore_model(model, init, leave_out=() if with_head else ("head",), may_lack=may_lack)
        logging.info("started from %s, %s", path, "head included" if with_head else "with a fresh head")
    if ema is not None:
        ema.reset()


def _disarm(stop: StopOnSignal) -> None:
    """Stops the thread of a signal from saving and writing notes after the training."""
    stop.rescue = stop.note = None
