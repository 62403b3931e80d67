"""`--mode=continuous_eval`: a process beside training that evaluates each checkpoint as it appears.

Training holds its workdir's lock and owns metrics.jsonl, eval/, best/ and tensorboard/ in it. This process reads its
checkpoints and writes files of the same names in WORKDIR/continuous_eval, under a lock of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection

import orbit
import tensorflow as tf
from absl import logging

from engine import actions, checkpoints, files
from engine.ema import EmaWeights
from engine.evaluator import EvaluatorGroup
from engine.protocols import AcousticModel
from engine.report.writer import ReportWriter
from engine.run_records import read_metrics
from engine.workdir import WorkdirError

FOLDER = "continuous_eval"
_FINISHED_FILE = "finished.json"
_POLL_SECS = 2.0


def mark_finished(workdir: str, *, step: int, reason: str) -> None:
    """Says in the workdir that training has come to its end; no further checkpoint will appear."""
    files.write_json_atomic(os.path.join(workdir, _FINISHED_FILE), {"step": step, "reason": reason})


def mark_running(workdir: str) -> None:
    """Takes `mark_finished` back."""
    path = os.path.join(workdir, _FINISHED_FILE)
    if os.path.exists(path):
        os.remove(path)


def finished_reason(workdir: str) -> str:
    """Returns why training has ended, "" while it has not."""
    try:
        with open(os.path.join(workdir, _FINISHED_FILE), encoding="utf-8") as file:
            return str(json.load(file)["reason"])
    except FileNotFoundError:
        return ""


def wait_for_run(workdir: str, *, timeout_secs: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits until training has put its config and vocabulary there, which it does before its first update.

    Raises:
        WorkdirError: It did not within the time.
    """
    deadline = time.monotonic() + timeout_secs
    while not all(os.path.exists(os.path.join(workdir, name)) for name in ("config.json", "vocab.json")):
        if time.monotonic() >= deadline:
            raise WorkdirError(
                f"{workdir}: no training run has begun there within {timeout_secs:g} s (eval.idle_timeout_secs); start "
                "one, or name the workdir of one with --workdir or --checkpoint"
            )
        sleep(min(_POLL_SECS, timeout_secs))


def follow_checkpoints(
    folder: str,
    evaluate: Callable[[int, str], bool],
    *,
    done: Collection[int],
    finished: Callable[[], str],
    idle_timeout_secs: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Calls `evaluate` for each checkpoint in turn until training is done or nothing comes any more.

    Args:
        folder: Where checkpoints appear; need not exist yet.
        evaluate: (step, path) -> whether it could be evaluated.
        done: Steps evaluated by an earlier process.
        finished: Returns why no further checkpoint will appear, "" while one may.
        idle_timeout_secs: Longest wait for the next checkpoint.
        sleep: Waits.
        clock: Seconds.

    Returns:
        Why it ended.
    """
    seen = set(done)
    idle_since = clock()
    while True:
        reason = finished()  # asked first: what was saved before training ended is in the list then
        state = tf.train.get_checkpoint_state(folder)
        paths = list(state.all_model_checkpoint_paths) if state else []
        found = sorted((int(path.rpartition("-")[2]), path) for path in paths)
        fresh = [(step, path) for step, path in found if step not in seen]
        if fresh:
            step, path = fresh[0]
            seen.add(step)
            evaluate(step, path)
            idle_since = clock()
        elif reason:
            return reason
        elif clock() - idle_since >= idle_timeout_secs:
            return f"no new checkpoint for {idle_timeout_secs:g} s (eval.idle_timeout_secs)"
        else:
            sleep(min(_POLL_SECS, idle_timeout_secs))


def evaluate_continuously(
    *,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    ema: EmaWeights | None,
    evaluators: EvaluatorGroup,
    global_step: tf.Variable,
    best_of: str,
    training_workdir: str,
    output: str,
    idle_timeout_secs: float,
    make_report: Callable[..., ReportWriter],
) -> dict[str, dict[str, float]]:
    """Evaluates what is and what comes in a training workdir.

    Args:
        strategy: Where it runs.
        model: Its weights are replaced.
        ema: Averages of them, if training keeps some.
        evaluators: Of this model, with the same averages.
        global_step: Is set to the update of each checkpoint.
        best_of: Set whose WER decides about OUTPUT/best.
        training_workdir: Of the other process.
        output: Folder for what comes out.
        idle_timeout_secs: Longest wait for the next checkpoint.
        make_report: As `unpack.report_maker`.

    Returns:
        The figures of the last checkpoint, {set: {figure: value}}.
    """
    metrics_path = os.path.join(output, "metrics.jsonl")
    state = tf.train.Checkpoint(model=model, global_step=global_step)
    if ema is not None:
        state.ema = ema
    best = checkpoints.BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model),
        directory=os.path.join(output, checkpoints.BEST_FOLDER),
        global_step=global_step,
    )
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        evaluator=evaluators,
        eval_summary_dir=os.path.join(output, "tensorboard"),
        # The lines say that a checkpoint is done: killed before them, it is evaluated again.
        eval_actions=[
            actions.PredictionsWriter(
                workdir=output, scores=evaluators.scores, data=evaluators.data, global_step=global_step
            ),
            actions.SaveBest(best=best, key=(best_of, "wer"), ema=ema),
            make_report(
                workdir=output,
                training_workdir=training_workdir,
                global_step=global_step,
                data=evaluators.data,
            ),
            actions.MetricsWriter(path=metrics_path, global_step=global_step),
        ],
    )
    figures: dict[str, dict[str, float]] = {}

    def evaluate(step: int, path: str) -> bool:
        try:
            checkpoints.check_matches(state, path)
            with strategy.scope():
                state.read(path).expect_partial()
        except (WorkdirError, tf.errors.OpError) as error:
            # Training keeps the newest few: this one may have been replaced while another was evaluated.
            is_gone = not os.path.exists(f"{path}.index")
            reason = "training removed it before its turn came; raise checkpoint.keep" if is_gone else str(error)
            logging.warning("%s is passed over: %s", path, reason)
            return False
        logging.info("evaluating %s", path)
        figures.clear()
        figures.update(controller.evaluate())
        return True

    lines = read_metrics(metrics_path) if os.path.exists(metrics_path) else []
    sets_of: dict[int, set[str]] = {}
    for line in lines:
        sets_of.setdefault(line["step"], set()).add(line["split"])
    reason = follow_checkpoints(
        os.path.join(training_workdir, checkpoints.CHECKPOINTS_FOLDER),
        evaluate,
        done=[step for step, names in sets_of.items() if names >= set(evaluators.names)],
        finished=lambda: finished_reason(training_workdir),
        idle_timeout_secs=idle_timeout_secs,
    )
    logging.info("continuous evaluation ends: %s", reason)
    return figures
