"""Evaluations of an interrupted run come at the same updates as those of one that ran through."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from engine.training.outer_loop import evaluation_at, train_and_evaluate


class StandInController:
    """Counts what `_train_and_evaluate` asks for."""

    def __init__(self, step, metrics_path):
        self.global_step = tf.Variable(step)
        self.calls = []
        self._metrics_path = metrics_path

    def evaluate(self):
        self.calls.append(("evaluate", int(self.global_step)))
        return {"dev": {"wer": 0.5}}

    def train(self, steps, checkpoint_at_completion):
        self.global_step.assign(steps)
        self.calls.append(("train", steps, checkpoint_at_completion))

    def train_and_evaluate(self, train_steps, eval_interval):
        self.calls.append(("train_and_evaluate", int(self.global_step), train_steps, eval_interval))
        return {"dev": {"wer": 0.25}}


@pytest.mark.parametrize(
    ("step", "evaluated", "calls"),
    [
        (0, False, [("train_and_evaluate", 0, 90, 20)]),
        (13, False, [("train", 20, False), ("evaluate", 20), ("train_and_evaluate", 20, 90, 20)]),
        (40, False, [("evaluate", 40), ("train_and_evaluate", 40, 90, 20)]),  # killed between saving and evaluating
        (40, True, [("train_and_evaluate", 40, 90, 20)]),
        (83, False, [("train", 90, True), ("evaluate", 90)]),
        (90, False, [("evaluate", 90)]),
        (90, True, []),  # finished: nothing is done twice
    ],
)
def test_an_interrupted_run_evaluates_at_the_same_updates(tmp_path, step, evaluated, calls):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 40, "split": "train"}\n')
    if evaluated:
        path.write_text(json.dumps({"step": step, "split": "dev", "wer": 0.125}) + "\n")
    controller = StandInController(step, path)
    figures = train_and_evaluate(controller, num_updates=90, every_updates=20, metrics_path=str(path), sets=["dev"])
    assert controller.calls == calls
    assert figures["dev"]["wer"] == (0.125 if not calls else 0.5 if calls[-1][0] == "evaluate" else 0.25)


def test_a_line_that_names_no_update_or_set_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 40, "split": "dev", "wer": 0.5}\n{"step": 40}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        evaluation_at(str(path), 40, ["dev"])


def test_the_evaluation_of_another_set_under_the_same_name_is_done_again_and_the_old_line_stays(tmp_path):
    path = tmp_path / "metrics.jsonl"
    old = {"step": 40, "split": "dev", "wer": 0.125, "set_digest": "old"}
    path.write_text(json.dumps(old) + "\n")
    controller = StandInController(40, path)
    arguments = {"num_updates": 40, "every_updates": 20, "metrics_path": str(path), "sets": ["dev"]}
    train_and_evaluate(controller, **arguments, set_digests={"dev": "new"})
    assert controller.calls == [("evaluate", 40)]
    assert [json.loads(line) for line in path.open()] == [old]
    assert train_and_evaluate(controller, **arguments, set_digests={"dev": "old"}) == {"dev": old}
    assert len(controller.calls) == 1
