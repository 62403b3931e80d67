"""What happens after each loop of updates and after each evaluation of a run, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from engine.actions import early_stopping, unreadable_rows, writers
from engine.actions.collapse import CollapseWatch
from engine.checkpointing import manager
from engine.console.training_log import TrainingLog
from engine.evaluation.evaluator import EvaluatorGroup
from engine.protocols import AcousticModel, TrainData
from engine.report.writer import ReportWriter
from engine.training import skipped_updates
from engine.training.ema import ema_name
from engine.training.trainer import Trainer
from engine.workdir import identity

Action = Callable[[Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class LoopActions:
    """The actions of one run, for orbit.Controller.

    Attributes:
        after_updates: Called with a loop's figures, one after the other.
        after_evaluation: Called with an evaluation's figures.
        log: The lines about training, a context manager and a hook between updates, which is among them.
        early: Early stopping, which is among them.
        report_unreadable: Writes which utterances could not be read so far, for a run that ends within a loop.
    """

    after_updates: list[Action]
    after_evaluation: list[Action]
    log: TrainingLog
    early: early_stopping.EarlyStopping
    report_unreadable: Callable[[], None]


def build_actions(
    *,
    workdir: str,
    metrics_path: str,
    global_step: tf.Variable,
    num_updates: int,
    quiet_updates: int,
    eval_every: int,
    trainer: Trainer,
    model: AcousticModel,
    train_data: TrainData,
    evaluators: EvaluatorGroup | None,
    best_of: str,
    patience: int,
    make_report: Callable[..., ReportWriter],
    guard: unreadable_rows.BadRowGuard,
    is_chief: bool,
    run_id: str,
    check_signal: Action,
    stop: Action,
) -> LoopActions:
    """Puts the actions of a run in order.

    Args:
        workdir: Folder of the run.
        metrics_path: Its metrics.jsonl.
        global_step: Updates done.
        num_updates: Updates of the whole run.
        quiet_updates: Updates at the start in which nothing but blanks is no reason for a warning.
        eval_every: Updates between evaluations; 0 = only at the end.
        trainer: What trains.
        model: What it trains.
        train_data: What it trains on.
        evaluators: What evaluates; None = nothing does.
        best_of: The evaluation set that best/ goes by.
        patience: As `EarlyStopping`.
        make_report: As `unpack.report_maker`.
        guard: Ends the run when too many rows cannot be read.
        is_chief: Whether this process writes; the others check alone.
        run_id: As `run_identity.begin_run` returned it to the chief.
        check_signal: Ends the loop after a signal, when there is an update to save.
        stop: Ends it after an evaluation.
    """
    data = evaluators.data if evaluators else {}
    # Before anything is written: where the workdir is gone, writing would make half of another.
    still_there = identity.RunFiles(workdir, run_id, global_step)
    writer = writers.MetricsWriter(
        path=metrics_path,
        global_step=global_step,
        set_digests={name: one.digest for name, one in data.items()},
        extra=lambda: {"data_digest": f"{int(trainer.data_digest.numpy()) % 2**64:016x}"},
    )
    unreadable = unreadable_rows.UnreadableReport(
        path=metrics_path, global_step=global_step, unreadable_fn=train_data.unreadable
    )
    log = TrainingLog(
        global_step=global_step,
        num_updates=num_updates,
        eval_every=eval_every if evaluators is not None else 0,
        peek=trainer.peek,
    )
    early = early_stopping.EarlyStopping(
        patience=patience if evaluators is not None else 0,
        sets=[best_of, *([] if trainer.ema is None else [ema_name(best_of)])],
        metrics_path=metrics_path,
        global_step=global_step,
        set_digest=data[best_of].digest if best_of in data else "",
    )
    watch = CollapseWatch(global_step=global_step, num_updates=num_updates, first_updates=quiet_updates)
    # What may raise out of the loop comes last, when everything else is written.
    after_updates: list[Action] = [
        *([still_there, writer, unreadable] if is_chief else ()),
        log,
        watch,
        guard,
        skipped_updates.SkipGuard(
            counter=trainer.skip_counter,
            utterance_ids_of=train_data.utterance_ids_of,
            workdir=workdir,
            is_chief=is_chief,
        ),
        check_signal,
    ]
    # The lines in metrics.jsonl say that an evaluation is done: killed before them, all of it is done again.
    writing: list[Action] = []
    if is_chief:
        best = manager.BestCheckpoint(
            checkpoint=tf.train.Checkpoint(model=model),
            directory=storage.join(workdir, layout.BEST_FOLDER),
            global_step=global_step,
            run_id=run_id,
        )
        writing = [
            still_there,
            writers.PredictionsWriter(
                workdir=workdir, scores=evaluators.scores if evaluators else {}, data=data, global_step=global_step
            ),
            writers.SaveBest(
                best=best,
                key=(best_of, "wer"),
                ema=trainer.ema,
                set_digest=data[best_of].digest if best_of in data else "",
            ),
            make_report(
                workdir=workdir,
                global_step=global_step,
                data=data,
            ),
            writer,
        ]

    def report_unreadable() -> None:
        still_there()
        unreadable()

    return LoopActions(
        after_updates=after_updates,
        after_evaluation=[*writing, log.resume, log.log_evaluation, watch.after_evaluation, early, stop],
        log=log,
        early=early,
        report_unreadable=report_unreadable,
    )
