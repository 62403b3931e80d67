"""Assembles the actions of a run that follow each loop of updates and each evaluation, in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from engine.actions import writers
from engine.actions.collapse import CollapseWatch
from engine.actions.early_stopping import EarlyStopping
from engine.actions.skip_guard import SkipGuard
from engine.actions.unreadable_rows import UnreadableReport, UnreadableRowGuard
from engine.checkpointing.best import BestCheckpoint
from engine.console.training_log import TrainingLog
from engine.evaluation.evaluator import EvaluatorGroup
from engine.protocols import TrainData
from engine.report.writer import ReportWriter
from engine.training.ema import ema_name
from engine.training.trainer import Trainer
from engine.workdir.identity import RunFiles

Action = Callable[[Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionOptions:
    """Options of a run's actions.

    Attributes:
        num_updates: Number of updates of the run.
        quiet_updates: Number of first updates in which blank outputs cause no warning.
        eval_every: Number of updates between evaluations; 0 = only at the end.
        best_metric_set: Evaluation set whose error rate decides about best/ and early stopping.
        patience: Number of evaluations without a lower rate that ends the run; 0 = never.
        best_metric: The rate that decides, "wer" or "cer".
    """

    num_updates: int
    quiet_updates: int
    eval_every: int
    best_metric_set: str
    patience: int
    best_metric: str = "wer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopActions:
    """The actions of a run for `orbit.Controller`.

    Attributes:
        after_updates: Actions called in order with a loop's metrics.
        after_evaluation: Actions called in order with an evaluation's metrics.
        log: Logs training; also a context manager and a hook between updates.
        early: Stops the run early; one of the actions after an evaluation.
        report_unreadable: Records the unreadable utterances so far, for a run that ends within a loop.
    """

    after_updates: list[Action]
    after_evaluation: list[Action]
    log: TrainingLog
    early: EarlyStopping
    report_unreadable: Callable[[], None]


def build_actions(
    *,
    run_files: RunFiles,
    options: ActionOptions,
    trainer: Trainer,
    train_data: TrainData,
    evaluators: EvaluatorGroup | None,
    make_report: Callable[..., ReportWriter],
    guard: UnreadableRowGuard,
    is_chief: bool,
    check_signal: Action,
    stop: Action,
) -> LoopActions:
    """Builds the actions of a run in their order.

    Args:
        run_files: Checks before each write that the workdir still belongs to the run.
        options: Options of the actions.
        trainer: The trainer.
        train_data: The training data.
        evaluators: The evaluators; None if nothing is evaluated.
        make_report: Builds the report's writer, see `engine.config.builders.report_maker`.
        guard: Ends the run when too many rows are unreadable.
        is_chief: Whether this process writes; the others only run checks.
        check_signal: Ends the loop after a signal, once there is an update to save.
        stop: Ends the run after an evaluation if a signal has come.
    """
    step, metrics_path = run_files.global_step, storage.join(run_files.workdir, layout.METRICS_FILE)
    writer = writers.MetricsWriter(
        path=metrics_path,
        global_step=step,
        set_digests=_digests_of(evaluators),
        extra=lambda: _describe_data(trainer, train_data, int(step.numpy())),
    )
    unreadable = UnreadableReport(path=metrics_path, global_step=step, unreadable_fn=train_data.unreadable)
    log = TrainingLog(
        global_step=step,
        num_updates=options.num_updates,
        eval_every=options.eval_every if evaluators is not None else 0,
        peek=trainer.peek,
    )
    early = _build_early_stopping(run_files, options, trainer, evaluators)
    collapse = CollapseWatch(
        global_step=step,
        num_updates=options.num_updates,
        first_updates=options.quiet_updates,
        metric=options.best_metric,
    )
    skips = SkipGuard(
        counter=trainer.skip_counter,
        utterance_ids_of=train_data.utterance_ids_of,
        workdir=run_files.workdir,
        is_chief=is_chief,
    )
    recording: list[Action] = []
    writing: list[Action] = []
    if is_chief:
        recording = [run_files, writer, unreadable]
        # The writer of metrics is last: its lines mark the evaluation as done; a kill before them repeats it.
        writing = [*_writing_actions(run_files, options, trainer, evaluators, make_report), writer]

    def report_unreadable() -> None:
        run_files()
        unreadable()

    return LoopActions(
        # Actions that may stop the run come last, after everything is written.
        after_updates=[*recording, log, collapse, guard, skips, check_signal],
        after_evaluation=[*writing, log.resume, log.log_evaluation, collapse.after_evaluation, early, stop],
        log=log,
        early=early,
        report_unreadable=report_unreadable,
    )


def _writing_actions(
    run_files: RunFiles,
    options: ActionOptions,
    trainer: Trainer,
    evaluators: EvaluatorGroup | None,
    make_report: Callable[..., ReportWriter],
) -> list[Action]:
    """Returns the actions that write what an evaluation leaves, but for its metrics; arguments of `build_actions`."""
    data, scores = (evaluators.data, evaluators.scores) if evaluators else ({}, {})
    workdir, step, best_set = run_files.workdir, run_files.global_step, options.best_metric_set
    best = BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=trainer.model),
        directory=storage.join(workdir, layout.BEST_FOLDER),
        global_step=step,
        run_id=run_files.run_id,
    )
    return [
        run_files,
        writers.PredictionsWriter(workdir=workdir, scores=scores, data=data, global_step=step),
        writers.SaveBest(
            best=best,
            key=(best_set, options.best_metric),
            ema=trainer.ema,
            set_digest=_digests_of(evaluators).get(best_set, ""),
        ),
        make_report(workdir=workdir, global_step=step, data=data),
    ]


def _build_early_stopping(
    run_files: RunFiles, options: ActionOptions, trainer: Trainer, evaluators: EvaluatorGroup | None
) -> EarlyStopping:
    """Builds the early stopping by the raw and the averaged weights; arguments of `build_actions`."""
    name = options.best_metric_set
    return EarlyStopping(
        patience=options.patience if evaluators is not None else 0,
        sets=[name] if trainer.ema is None else [name, ema_name(name)],
        metrics_path=storage.join(run_files.workdir, layout.METRICS_FILE),
        global_step=run_files.global_step,
        set_digest=_digests_of(evaluators).get(name, ""),
        metric=options.best_metric,
    )


def _digests_of(evaluators: EvaluatorGroup | None) -> dict[str, str]:
    """Returns evaluation set -> the digest of its utterances."""
    return {name: data.digest for name, data in evaluators.data.items()} if evaluators else {}


def _describe_data(trainer: Trainer, train_data: TrainData, num_updates: int) -> dict[str, Any]:
    """Returns the fields about the data so far in a line of metrics.jsonl: its digest, and the rows of each corpus."""
    rows = train_data.corpus_rows(num_updates)
    digest = f"{int(trainer.data_digest.numpy()) % 2**64:016x}"
    return {"data_digest": digest, **({"corpus_rows": rows} if rows else {})}
