"""`--mode=continuous_eval`: a process beside training that evaluates each checkpoint as it appears.

Training holds its workdir's lock and owns metrics.jsonl, eval/, best/ and tensorboard/ in it. This process reads its
checkpoints and writes files of the same names in WORKDIR/continuous_eval, under a lock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import orbit
import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.json_files import field
from common.workdir_layout import read_run_id
from engine.actions import writers
from engine.checkpointing import manager
from engine.common import files
from engine.evaluation.evaluator import EvaluatorGroup
from engine.protocols import AcousticModel
from engine.report.writer import ReportWriter
from engine.training.ema import EmaWeights
from engine.training.outer_loop import is_same_set
from engine.workdir import identity
from engine.workdir.folder import WorkdirError
from engine.workdir.records import read_metrics

FOLDER = layout.CONTINUOUS_FOLDER
_POLL_SECS = 2.0


def mark_finished(workdir: str, *, step: int, reason: str) -> None:
    """Says in the workdir that training has come to its end; no further checkpoint will appear."""
    files.write_json_atomic(storage.join(workdir, layout.FINISHED_FILE), {"step": step, "reason": reason})


def mark_running(workdir: str) -> None:
    """Takes `mark_finished` back."""
    storage.remove(storage.join(workdir, layout.FINISHED_FILE))


def finished_reason(workdir: str) -> str:
    """Returns why training has ended, "" while it has not.

    Raises:
        MalformedFileError: finished.json is damaged.
    """
    path = storage.join(workdir, layout.FINISHED_FILE)
    try:
        return field(layout.read_object(path), "reason", str, path)
    except FileNotFoundError:
        return ""


def wait_for_run(workdir: str, *, timeout_secs: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits until training has put its config and vocabulary there, which it does before its first update.

    Raises:
        WorkdirError: It did not within the time.
    """
    deadline = time.monotonic() + timeout_secs
    names = (layout.CONFIG_FILE, layout.VOCAB_FILE)
    while not all(storage.is_file(storage.join(workdir, name)) for name in names):
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
    seen, unsealed = set(done), ""
    idle_since = clock()
    while True:
        reason = finished()  # asked first: what was saved before training ended lies there then
        paths = layout.list_checkpoints(folder)
        if paths and not reason and paths[-1] != unsealed and layout.read_manifest(paths[-1]) is None:
            unsealed = paths.pop()  # its manifest is written last: perhaps it is not whole before the next look
        found = [(int(path.rpartition("-")[2]), path) for path in paths]
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
    run_id: str,
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
        run_id: Of the training; as soon as the workdir belongs to another run, this ends.
        idle_timeout_secs: Longest wait for the next checkpoint.
        make_report: As `unpack.report_maker`.

    Returns:
        The figures of the last checkpoint, {set: {figure: value}}.
    """
    metrics_path = storage.join(output, layout.METRICS_FILE)
    digests = {name: data.digest for name, data in evaluators.data.items()}
    state = tf.train.Checkpoint(model=model, global_step=global_step)
    if ema is not None:
        state.ema = ema
    best = manager.BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model),
        directory=storage.join(output, layout.BEST_FOLDER),
        global_step=global_step,
        run_id=run_id,
    )
    controller = orbit.Controller(
        strategy=strategy,
        global_step=global_step,
        evaluator=evaluators,
        eval_summary_dir=storage.join(output, layout.TENSORBOARD_FOLDER),
        # The lines say that a checkpoint is done: killed before them, it is evaluated again.
        eval_actions=[
            identity.RunFiles(output, run_id, global_step),
            writers.PredictionsWriter(
                workdir=output, scores=evaluators.scores, data=evaluators.data, global_step=global_step
            ),
            writers.SaveBest(best=best, key=(best_of, "wer"), ema=ema, set_digest=digests.get(best_of, "")),
            make_report(
                workdir=output,
                training_workdir=training_workdir,
                global_step=global_step,
                data=evaluators.data,
            ),
            writers.MetricsWriter(path=metrics_path, global_step=global_step, set_digests=digests),
        ],
    )
    figures: dict[str, dict[str, float]] = {}

    def evaluate(step: int, path: str) -> bool:
        if layout.run_id_of(path) not in ("", run_id):
            logging.warning("%s is passed over: it belongs to another run than %s", path, training_workdir)
            return False
        try:
            manager.check_matches(state, path)
            with strategy.scope():
                state.read(path).expect_partial()
        except (WorkdirError, tf.errors.OpError) as error:
            # Training keeps the newest few: this one may have been replaced while another was evaluated.
            is_gone = not storage.is_file(f"{path}.index")
            reason = "training removed it before its turn came; raise checkpoint.keep" if is_gone else str(error)
            logging.warning("%s is passed over: %s", path, reason)
            return False
        logging.info("evaluating %s", path)
        figures.clear()
        figures.update(controller.evaluate())
        return True

    lines = read_metrics(metrics_path) if storage.is_file(metrics_path) else []
    sets_of: dict[int, set[str]] = {}
    for line in lines:
        if is_same_set(line, digests.get(line["split"], "")):
            sets_of.setdefault(line["step"], set()).add(line["split"])

    def finished() -> str:
        if read_run_id(training_workdir) != run_id:
            return f"another run has begun in {training_workdir}; start again to evaluate it"
        return finished_reason(training_workdir)

    reason = follow_checkpoints(
        storage.join(training_workdir, layout.CHECKPOINTS_FOLDER),
        evaluate,
        done=[step for step, names in sets_of.items() if names >= set(evaluators.names)],
        finished=finished,
        idle_timeout_secs=idle_timeout_secs,
    )
    logging.info("continuous evaluation ends: %s", reason)
    return figures
