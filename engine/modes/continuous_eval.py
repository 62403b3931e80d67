"""Runs `--mode=continuous_eval`: evaluates the checkpoints of a training in another process as they appear.

Training holds its workdir's lock and owns metrics.jsonl, eval/, best/ and tensorboard/ in it. This process reads its
checkpoints and writes files of the same names to WORKDIR/continuous_eval, under a lock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import orbit
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.json_files import field
from common.workdir_layout import read_run_id
from engine.actions import writers
from engine.checkpointing.best import BestCheckpoint
from engine.checkpointing.compatibility import check_matches
from engine.common import files
from engine.common.out_of_memory import is_out_of_memory
from engine.config import builders, fields_of_run
from engine.console.training_log import without_orbit_prints
from engine.protocols import Components
from engine.training.ema import EmaWeights
from engine.training.outer_loop import is_same_set
from engine.workdir import identity
from engine.workdir.folder import WorkdirError, WorkdirLock, storage_faults
from engine.workdir.records import read_metrics_if_any

FOLDER = layout.CONTINUOUS_FOLDER
_POLL_SECS = 2.0


def mark_finished(workdir: str, *, step: int, reason: str) -> None:
    """Records in the workdir that training has ended and no further checkpoint will appear."""
    files.write_json_atomic(storage.join(workdir, layout.FINISHED_FILE), {"step": step, "reason": reason})


def mark_running(workdir: str) -> None:
    """Removes the record of `mark_finished`."""
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
    """Waits until training has written its config and vocabulary, which it does before its first update.

    Raises:
        WorkdirError: It did not do so in time.
    """
    deadline = time.monotonic() + timeout_secs
    names = (layout.CONFIG_FILE, layout.VOCAB_FILE)
    while not all(storage.is_file(storage.join(workdir, name)) for name in names):
        if time.monotonic() >= deadline:
            raise WorkdirError(
                f"{workdir}: no training run has begun there within {timeout_secs:g} s (eval.idle_timeout_secs); start "
                "one, or give the workdir of one to --workdir or --checkpoint"
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
    """Calls `evaluate` for each checkpoint in order until training has ended or no checkpoint appears any more.

    Args:
        folder: Folder of the checkpoints; need not exist yet.
        evaluate: (step, path) -> whether the checkpoint could be evaluated.
        done: Steps evaluated by an earlier process.
        finished: Returns why no further checkpoint will appear, "" while one may.
        idle_timeout_secs: Longest wait for the next checkpoint, in seconds.
        sleep: Waits for a number of seconds.
        clock: Returns a time in seconds.

    Returns:
        The reason for the end.
    """
    seen, unsealed = set(done), ""
    idle_since = clock()
    while True:
        # Before the list: everything saved before the end is then in it.
        reason = finished()
        paths = layout.list_checkpoints(folder)
        if paths and not reason and _is_half_saved(paths[-1], unsealed):
            unsealed = paths.pop()
        step, path = _first_fresh(paths, seen)
        if path:
            seen.add(step)
            evaluate(step, path)
            idle_since = clock()
        elif reason:
            return reason
        elif clock() - idle_since >= idle_timeout_secs:
            return f"no new checkpoint for {idle_timeout_secs:g} s (eval.idle_timeout_secs)"
        else:
            sleep(min(_POLL_SECS, idle_timeout_secs))


def _is_half_saved(path: str, waited_for: str) -> bool:
    """Tells whether the save of a checkpoint may still be running: it has no manifest, which is written last.

    Args:
        path: The checkpoint.
        waited_for: A checkpoint that has had one more interval to get its manifest, and gets no other.
    """
    return path != waited_for and layout.read_manifest(path) is None


def _first_fresh(paths: Sequence[str], seen: Collection[int]) -> tuple[int, str]:
    """Returns the step and the path of the first checkpoint whose step is not in `seen`; (0, "") without one."""
    found = ((layout.checkpoint_number(path) or 0, path) for path in paths)
    return next(((step, path) for step, path in found if step not in seen), (0, ""))


def run(
    *, config: ConfigDict, parts: Components, workdir: str, strategy: tf.distribute.Strategy, checkpoint: str
) -> dict[str, dict[str, float]]:
    """Evaluates the checkpoints of a training in another process, those that exist and those that appear.

    Args:
        config: Config of the run, see configs/base.py.
        parts: Callables of data and models.
        workdir: Folder of this process; the results are written to a folder in it.
        strategy: Strategy to evaluate under.
        checkpoint: Workdir of the training to follow; "" = `workdir`.

    Returns:
        The metrics of the last checkpoint, {set: {metric: value}}.

    Raises:
        ValueError: No training has begun within the time limit, or config and data do not fit together.
    """
    if not config.data.eval:
        raise ValueError("--mode=continuous_eval needs at least one evaluation set; add one under config.data.eval")
    training_workdir, output = checkpoint or workdir, storage.join(workdir, FOLDER)
    timeout_secs = config.eval.idle_timeout_secs
    with storage_faults(output), WorkdirLock(output):
        wait_for_run(training_workdir, timeout_secs=timeout_secs)
        follower = _Follower(config, parts, strategy, training_workdir=training_workdir, output=output)
        reason = follow_checkpoints(
            storage.join(training_workdir, layout.CHECKPOINTS_FOLDER),
            follower.evaluate,
            done=follower.steps_done(),
            finished=follower.finished,
            idle_timeout_secs=timeout_secs,
        )
    logging.info("continuous evaluation ends: %s", reason)
    return follower.metrics


class _Follower:
    """Evaluates one checkpoint of a training after the other.

    Attributes:
        metrics: Metrics of the last checkpoint, {set: {metric: value}}.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: Components,
        strategy: tf.distribute.Strategy,
        *,
        training_workdir: str,
        output: str,
    ) -> None:
        self.metrics: dict[str, dict[str, float]] = {}
        self._strategy = strategy
        self._training_workdir = training_workdir
        self._metrics_path = storage.join(output, layout.METRICS_FILE)
        self._run_id = identity.find_run_id(training_workdir)
        identity.claim_output(output, self._run_id)
        tokenizer = parts.build_tokenizer(storage.join(training_workdir, layout.VOCAB_FILE))
        parts = builders.with_blank(parts, tokenizer)
        config = fields_of_run.with_recorded(config, parts, run=training_workdir)
        eval_data = builders.build_eval_data(config, parts, tokenizer, num_replicas=strategy.num_replicas_in_sync)
        with strategy.scope():
            model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
            decay = config.train.ema_decay
            ema = EmaWeights(model.trainable_variables, decay=decay) if decay else None
            step = orbit.utils.create_global_step()
            self._evaluators = evaluators = builders.build_evaluators(
                config, parts, strategy=strategy, model=model, tokenizer=tokenizer, eval_data=eval_data, ema=ema
            )
        self._state = tf.train.Checkpoint(model=model, global_step=step)
        if ema is not None:
            self._state.ema = ema
        data, best_set = evaluators.data, config.eval.best_metric_set
        self._digests = {name: one.digest for name, one in data.items()}
        best = BestCheckpoint(
            checkpoint=tf.train.Checkpoint(model=model),
            directory=storage.join(output, layout.BEST_FOLDER),
            global_step=step,
            run_id=self._run_id,
        )
        self._controller = orbit.Controller(
            strategy=strategy,
            global_step=step,
            evaluator=evaluators,
            eval_summary_dir=storage.join(output, layout.TENSORBOARD_FOLDER),
            eval_actions=[
                identity.RunFiles(output, self._run_id, step),
                writers.PredictionsWriter(workdir=output, scores=evaluators.scores, data=data, global_step=step),
                writers.SaveBest(
                    best=best,
                    key=(best_set, fields_of_run.choose_best_metric(config, eval_data)),
                    ema=ema,
                    set_digest=self._digests.get(best_set, ""),
                ),
                builders.report_maker(config, parts)(
                    workdir=output, training_workdir=training_workdir, global_step=step, data=data
                ),
                # Last: its lines mark a checkpoint as done. If the process is killed before, the next one repeats it.
                writers.MetricsWriter(path=self._metrics_path, global_step=step, set_digests=self._digests),
            ],
        )

    def evaluate(self, step: int, path: str) -> bool:
        """Evaluates a checkpoint; returns whether it could be restored."""
        del step
        if layout.run_id_of(path) not in ("", self._run_id):
            logging.warning("%s is ignored: it belongs to another run than %s", path, self._training_workdir)
            return False
        try:
            check_matches(self._state, path)
            with self._strategy.scope():
                self._state.read(path).expect_partial()
        except (WorkdirError, tf.errors.OpError) as error:
            if is_out_of_memory(error):  # so would be every other one
                raise
            # Training keeps the newest few; it may have removed this one while another was evaluated.
            is_gone = not storage.is_file(f"{path}.index")
            reason = "training removed it before its turn; raise checkpoint.keep" if is_gone else str(error)
            logging.warning("%s is ignored: %s", path, reason)
            return False
        logging.info("evaluating %s", path)
        with without_orbit_prints():
            self.metrics = self._controller.evaluate()
        return True

    def steps_done(self) -> list[int]:
        """Returns the steps of which an earlier process has evaluated all sets."""
        sets_of: dict[int, set[str]] = {}
        for line in read_metrics_if_any(self._metrics_path):
            if is_same_set(line, self._digests.get(line["split"], "")):
                sets_of.setdefault(line["step"], set()).add(line["split"])
        return [step for step, names in sets_of.items() if names >= set(self._evaluators.names)]

    def finished(self) -> str:
        """Returns why no further checkpoint of the run will appear, "" while one may."""
        if read_run_id(self._training_workdir) != self._run_id:
            return f"another run has begun in {self._training_workdir}; start again to evaluate it"
        return finished_reason(self._training_workdir)
