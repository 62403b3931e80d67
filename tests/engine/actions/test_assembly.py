"""In which order a run's actions come, who of several workers writes, and what a stop leaves behind."""

from __future__ import annotations

import functools
import json
import types

import pytest
import tensorflow as tf

from engine.actions.assembly import ActionOptions, build_actions
from engine.common import files
from engine.common.signals import StopTraining
from engine.report.writer import ReportWriter
from engine.training.skipped_updates import SkipCounter
from engine.workdir.identity import RunFiles

FIGURES = {
    "loss": 2.0, "num_rows": 8, "num_infeasible": 0, "num_bad": 0, "num_skipped_updates": 0, "blank_ratio": 0.5,
    "labels_per_frame": 0.3, "mean_confidence": 0.7, "gradient_norm": 1.5, "audio_secs": 8.0,
}  # fmt: skip
EVALUATION = {
    "dev": {
        "wer": 0.5, "cer": 0.25, "num_utterances": 2, "num_words": 4,
        "substitutions": 1, "deletions": 1, "insertions": 0,
    }
}  # fmt: skip


class Guard:
    def __init__(self):
        self.num_calls = 0

    def __call__(self, output):
        self.num_calls += 1


def build(workdir, *, is_chief, guard=None, said=None, **options):
    def leave(output=None):
        if said:
            raise StopTraining(said)

    return build_actions(
        run_files=RunFiles(str(workdir), "", tf.Variable(7, dtype=tf.int64)),
        options=ActionOptions(
            **{
                "num_updates": 20,
                "quiet_updates": 0,
                "eval_every": 10,
                "best_metric_set": "dev",
                "patience": 0,
                **options,
            }
        ),
        trainer=types.SimpleNamespace(
            model=tf.Module(),
            peek=dict,
            ema=None,
            data_digest=tf.Variable(-1, dtype=tf.int64),
            skip_counter=SkipCounter(limit=0),
        ),
        train_data=types.SimpleNamespace(
            unreadable=lambda before_update: [(before_update - 1, "u1", "cut")],
            utterance_ids_of=None,
            corpus_rows=lambda num_updates: {},
        ),
        evaluators=types.SimpleNamespace(scores={}, data={}),
        make_report=functools.partial(ReportWriter, page_environment=None, max_utterances=0, max_audio_mb=0.0),
        guard=guard or Guard(),
        is_chief=is_chief,
        check_signal=leave,
        stop=leave,
    )


def call(list_of_actions, output):
    for action in list_of_actions:
        action(output)


def test_a_stop_after_an_update_comes_when_everything_is_written_and_checked(tmp_path):
    guard = Guard()
    todo = build(tmp_path, is_chief=True, guard=guard, said="enough")
    with todo.log, pytest.raises(StopTraining, match="enough"):
        call(todo.after_updates, FIGURES)
    train, unreadable = files.read_jsonl(tmp_path / "metrics.jsonl")
    assert (train["split"], train["step"], train["loss"]) == ("train", 7, 2.0)
    assert train["data_digest"] == "f" * 16
    assert (unreadable["split"], unreadable["utterance_id"]) == ("unreadable", "u1")
    assert guard.num_calls == 1


def test_a_stop_after_an_evaluation_leaves_its_lines_and_the_best_weights(tmp_path):
    todo = build(tmp_path, is_chief=True, said="enough")
    with todo.log, pytest.raises(StopTraining, match="enough"):
        call(todo.after_evaluation, EVALUATION)
    assert [(line["split"], line["wer"]) for line in files.read_jsonl(tmp_path / "metrics.jsonl")] == [("dev", 0.5)]
    assert (tmp_path / "best").is_dir()


def test_a_worker_that_is_not_the_chief_checks_and_writes_nothing(tmp_path):
    guard = Guard()
    todo = build(tmp_path, is_chief=False, guard=guard)
    with todo.log:
        call(todo.after_updates, FIGURES)
        call(todo.after_evaluation, EVALUATION)
    assert guard.num_calls == 1
    assert list(tmp_path.iterdir()) == []


def test_the_chosen_rate_decides_about_best_and_early_stopping(tmp_path):
    actions = build(tmp_path, is_chief=True, best_metric="cer", patience=1)
    (tmp_path / "run.json").write_text("{}")
    for action in actions.after_evaluation[:-1]:
        action(EVALUATION)
    record = json.loads((tmp_path / "best/best.json").read_text())
    assert (record["metric"], record["value"], record["tie_value"]) == ("dev/cer", 0.25, 0.5)
    assert actions.early.metric == "cer"
