"""A second process beside training: every checkpoint once, its own files, an end."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import tensorflow as tf

from configs import base
from engine import experiment
from engine.modes import continuous_eval
from engine.workdir.folder import WorkdirError, WorkdirLock
from tests.helpers.experiment_toys import ToyEvalData, make_config, make_parts

FIGURES = ("loss", "wer", "cer", "deletions", "num_words", "num_utterances")


class Training:
    """Saves a checkpoint, or says that it is done, at each tick of the follower's clock."""

    def __init__(self, folder, script, *, keep=10):
        self.now, self.reason, self._script = 0.0, "", list(script)
        self._manager = tf.train.CheckpointManager(tf.train.Checkpoint(x=tf.Variable(1)), str(folder), max_to_keep=keep)

    def sleep(self, secs):
        self.now += secs
        for step in self._script.pop(0) if self._script else ():
            if step == "end":
                self.reason = "all done"
            else:
                self._manager.save(checkpoint_number=step)

    def follow(self, folder, evaluate, *, done=(), idle_timeout_secs=10.0):
        return continuous_eval.follow_checkpoints(
            str(folder), evaluate, done=done, finished=lambda: self.reason, idle_timeout_secs=idle_timeout_secs,
            sleep=self.sleep, clock=lambda: self.now,
        )  # fmt: skip


def test_each_checkpoint_is_evaluated_once_in_order_until_training_is_done(tmp_path):
    training, steps = Training(tmp_path, [(5,), (), (10, 15), (20, "end")]), []
    reason = training.follow(tmp_path, lambda step, path: steps.append(step) or True)
    assert (steps, reason) == ([5, 10, 15, 20], "all done")


def test_what_an_earlier_process_did_is_not_done_again(tmp_path):
    training, steps = Training(tmp_path, [(5, 10, "end")]), []
    training.follow(tmp_path, lambda step, path: steps.append(step) or True, done=[5])
    assert steps == [10]


def test_a_wait_that_is_too_long_ends_it(tmp_path):
    training, steps = Training(tmp_path, [(5,), (), (), (10,)]), []
    reason = training.follow(tmp_path, lambda step, path: steps.append(step) or True, idle_timeout_secs=4.0)
    assert steps == [5]
    assert reason == "no new checkpoint for 4 s (eval.idle_timeout_secs)"


def test_a_workdir_without_a_run_is_one_line_after_the_wait(tmp_path):
    with pytest.raises(WorkdirError, match="no training run has begun there within 0.01 s"):
        continuous_eval.wait_for_run(str(tmp_path), timeout_secs=0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that evaluates itself at each checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    config = make_config(folder, ema_decay=0.9)
    config.checkpoint.keep = 3
    config.eval.update({"every_updates": 2, "batch_size": 4, "best_metric_set": "dev", "idle_timeout_secs": 0.01})
    config.data.eval["dev"] = base.get_eval_set(input=str(folder))
    run = {"config": config, "parts": make_parts(build_eval_data=ToyEvalData), "workdir": str(folder / "run")}
    assert experiment.run(**run, mode="train_and_eval", strategy_name="one_device").exit_status == 0
    return folder / "run", run


def read(path):
    return [json.loads(line) for line in path.open()]


def test_its_figures_are_those_of_training_and_lie_beside_them(trained):
    workdir, run = trained
    before = {path: os.stat(path).st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    with WorkdirLock(workdir):  # training holds it all the time
        outcome = experiment.run(**run, mode="continuous_eval")
    output = workdir / "continuous_eval"
    found = read(output / "metrics.jsonl")
    wanted = [line for line in read(workdir / "metrics.jsonl") if line["split"] != "train"]
    assert [(line["step"], line["split"]) for line in found] == [(s, n) for s in (2, 4, 6) for n in ("dev", "dev-ema")]
    assert [[line[name] for name in FIGURES] for line in found] == [[line[name] for name in FIGURES] for line in wanted]
    assert (outcome.exit_status, outcome.folder) == (0, str(output))
    assert outcome.metrics["dev"]["loss"] == found[-2]["loss"]
    assert (output / "eval/dev/predictions.jsonl").read_text() == (workdir / "eval/dev/predictions.jsonl").read_text()
    # The word errors are equal, so the characters decide, and then the later update.
    best = min(found, key=lambda line: (line["wer"], line["cer"], -line["step"]))
    assert json.loads((output / "best/best.json").read_text())["step"] == best["step"]
    page = (output / "report.html").read_text()
    assert "Weights of update 6" in page and "Against update 4" in page
    # Curves of the training that is followed, with an evaluation at each of its checkpoints.
    assert "Learning rate" in page and "dev-ema, update 2: " in page
    own = {workdir / ".lock"}
    assert {path: os.stat(path).st_mtime_ns for path in before if path not in own} == {
        path: time for path, time in before.items() if path not in own
    }
    again = experiment.run(**run, mode="continuous_eval")
    assert (again.exit_status, again.metrics) == (0, {})
    assert read(output / "metrics.jsonl") == found


def test_a_checkpoint_that_training_removed_meanwhile_is_passed_over(trained, tmp_path, monkeypatch):
    workdir, run = trained
    follow = continuous_eval.follow_checkpoints

    def late(folder, evaluate, **options):
        assert evaluate(1, os.path.join(folder, "ckpt-1")) is False
        return follow(folder, evaluate, **options)

    monkeypatch.setattr(continuous_eval, "follow_checkpoints", late)
    elsewhere = {**run, "workdir": str(tmp_path / "elsewhere")}
    assert experiment.run(**elsewhere, mode="continuous_eval", checkpoint=str(workdir)).exit_status == 0
    assert {line["step"] for line in read(tmp_path / "elsewhere/continuous_eval/metrics.jsonl")} == {2, 4, 6}


def test_training_that_goes_on_takes_its_end_back(tmp_path):
    workdir = str(tmp_path)
    assert continuous_eval.finished_reason(workdir) == ""
    continuous_eval.mark_finished(workdir, step=3, reason="early stopping")
    assert continuous_eval.finished_reason(workdir) == "early stopping"
    continuous_eval.mark_running(workdir)
    continuous_eval.mark_running(workdir)
    assert continuous_eval.finished_reason(workdir) == ""


def test_the_newest_checkpoint_without_a_manifest_waits_for_one_more_look(tmp_path):
    training, looks = Training(tmp_path, [(5,), ()]), []
    training.follow(tmp_path, lambda step, path: looks.append((step, training.now)) or True, idle_timeout_secs=5.0)
    assert looks == [(5, 4.0)]


def test_a_damaged_end_is_one_line(tmp_path):
    (tmp_path / "finished.json").write_text("{")
    with pytest.raises(ValueError, match=r"finished\.json is not valid JSON"):
        continuous_eval.finished_reason(str(tmp_path))


def test_checkpoints_of_another_run_in_the_same_workdir_are_neither_mixed_in_nor_passed_over(trained, tmp_path):
    workdir, run = trained
    first, second = tmp_path / "run", tmp_path / "second"
    shutil.copytree(workdir, first)
    run = {**run, "workdir": str(first)}
    experiment.run(**run, mode="continuous_eval")
    assert {line["step"] for line in read(first / "continuous_eval/metrics.jsonl")} == {2, 4, 6}
    first.rename(second)
    shutil.rmtree(second / "checkpoints")
    run["workdir"] = str(second)
    assert experiment.run(**run, mode="train").exit_status == 0
    assert (second / "earlier_runs/1/continuous_eval/metrics.jsonl").exists()
    # Back where a reader of the old run left it, as if it lay elsewhere: other updates of the same numbers are done.
    (second / "earlier_runs/1/continuous_eval").rename(second / "continuous_eval")
    experiment.run(**run, mode="continuous_eval")
    assert {line["step"] for line in read(second / "continuous_eval/metrics.jsonl")} == {2, 4, 6}
    assert (second / "continuous_eval/earlier_runs/1/metrics.jsonl").exists()
