"""What happens between train loops: lines in metrics.jsonl, the best model, the guard against bad rows."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from engine.actions import writers
from engine.actions.writers import MetricsWriter, SaveBest, last_step
from engine.checkpointing.best import BestCheckpoint
from engine.common import files
from engine.training.ema import EmaWeights


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


def test_train_loop_is_one_line(tmp_path, step):
    path = tmp_path / "run" / "metrics.jsonl"
    writer = MetricsWriter(path=path, global_step=step)
    step.assign(5)
    writer({"loss": tf.constant(1.5), "learning_rate": np.float32(0.25), "num_bad": 2.0})
    step.assign(10)
    writer({"loss": math.nan, "gradient_norm": tf.constant(math.inf)})
    assert path.read_text().splitlines() == [
        '{"step": 5, "split": "train", "loss": 1.5, "learning_rate": 0.25, "num_bad": 2.0}',
        '{"step": 10, "split": "train", "loss": null, "gradient_norm": null}',
    ]


def test_evaluation_is_one_line_per_set(tmp_path, step):
    path = tmp_path / "metrics.jsonl"
    step.assign(7)
    output = {"dev": {"wer": 0.5, "num_words": 4}, "other": {"wer": tf.constant(0.25)}}
    MetricsWriter(path=path, global_step=step)(output)
    assert files.read_jsonl(path) == [
        {"step": 7, "split": "dev", "wer": 0.5, "num_words": 4},
        {"step": 7, "split": "other", "wer": 0.25},
    ]


def test_empty_output_writes_nothing(tmp_path, step):
    MetricsWriter(path=tmp_path / "metrics.jsonl", global_step=step)({})
    assert not (tmp_path / "metrics.jsonl").exists()


def _lines(*steps):
    return "".join(f'{{"step": {number}, "split": "train", "loss": 1e-05}}\n' for number in steps)


@pytest.mark.parametrize(
    ("content", "restored", "num_removed", "expected"),
    [
        (_lines(5, 10, 10, 15), 10, 1, _lines(5, 10, 10)),
        (_lines(5, 10), 0, 2, ""),
        (_lines(5, 10), 10, 0, _lines(5, 10)),
        (_lines(5) + '{"step": 10, "lo', 10, 0, _lines(5)),
        (_lines(5, 10)[:-1], 10, 0, _lines(5, 10)),
    ],
)
def test_lines_past_the_checkpoint_are_removed(tmp_path, content, restored, num_removed, expected):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    assert writers.truncate_metrics(path, restored) == num_removed
    assert path.read_text() == expected
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_nothing_to_remove_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert writers.truncate_metrics(path, 3) == 0
    assert not path.exists()
    path.write_text(_lines(1, 2))
    inode = path.stat().st_ino
    writers.truncate_metrics(path, 3)
    assert path.stat().st_ino == inode


def test_written_again_after_a_kill_the_file_has_each_line_once(tmp_path, step):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path=path, global_step=step)
    for number in range(1, 5):
        step.assign(number)
        writer({"loss": 1.0 / number})
    whole = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 5, "spl')
    # The checkpoint was of step 2.
    assert writers.truncate_metrics(path, 2) == 2
    for number in range(3, 5):
        step.assign(number)
        writer({"loss": 1.0 / number})
    assert path.read_text() == whole


def _best(folder, step):
    weight = tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(weight=weight))
    return BestCheckpoint(checkpoint=checkpoint, directory=folder, global_step=step)


def test_best_by_a_figure_of_one_set_across_a_restart(tmp_path, step):
    for number, wer in ((1, 0.5), (2, 0.6)):
        step.assign(number)
        save = SaveBest(best=_best(tmp_path, step), key=("dev", "wer"))
        save({"dev": {"wer": tf.constant(wer)}, "other": {"wer": 0.1}})
    record = json.loads((tmp_path / "best.json").read_text())
    assert record == {"metric": "dev/wer", "value": 0.5, "step": 1, "weights": "raw"}
    step.assign(3)
    save({"dev": {"wer": 0.25}})
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]


@pytest.mark.parametrize(
    ("raw", "averaged", "saved"),
    [(0.5, 0.4, ("ema", 0.4, 2.0)), (0.4, 0.5, ("raw", 0.4, 1.0)), (0.4, 0.4, ("raw", 0.4, 1.0))],
)
def test_the_best_is_the_better_of_raw_and_averaged_weights(tmp_path, step, raw, averaged, saved):
    weight = tf.Variable(1.0)
    ema = EmaWeights([weight], decay=0.5)
    ema.shadows[0].assign(2.0)
    best = BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=tf.train.Checkpoint(weight=weight)), directory=tmp_path, global_step=step
    )
    save = SaveBest(best=best, key=("dev", "wer"), ema=ema)
    save({"dev": {"wer": raw}, "dev-ema": {"wer": averaged}})
    record = json.loads((tmp_path / "best.json").read_text())
    reader = tf.train.load_checkpoint(str(tmp_path))
    assert (record["weights"], record["value"]) == saved[:2]
    assert reader.get_tensor("model/weight/.ATTRIBUTES/VARIABLE_VALUE") == saved[2]
    assert (float(weight), float(ema.shadows[0])) == (1.0, 2.0)
    save({"dev": {"wer": 0.3}, "dev-ema": {"wer": float("nan")}})
    assert json.loads((tmp_path / "best.json").read_text())["weights"] == "raw"


@pytest.mark.parametrize(
    ("metric", "evaluations", "saved"),
    [
        ("wer", [(0.5, 0.3), (0.5, 0.2), (0.5, 0.25)], (2, 0.5, 0.2)),
        ("wer", [(0.5, 0.3), (0.6, 0.2), (0.5, 0.3)], (3, 0.5, 0.3)),
        ("cer", [(0.5, 0.3), (0.6, 0.2), (0.9, 0.2)], (2, 0.2, 0.6)),
        ("cer", [(1.0, 0.3), (1.0, 0.2), (1.0, 0.25)], (2, 0.2, 1.0)),
    ],
)
def test_the_chosen_rate_decides_and_the_other_one_between_equals(tmp_path, step, metric, evaluations, saved):
    for number, (wer, cer) in enumerate(evaluations, start=1):
        step.assign(number)
        SaveBest(best=_best(tmp_path, step), key=("dev", metric))({"dev": {"wer": wer, "cer": cer}})
    record = json.loads((tmp_path / "best.json").read_text())
    assert record["metric"] == f"dev/{metric}"
    assert (record["step"], record["value"], record["tie_value"]) == saved


@pytest.mark.parametrize(("averaged", "kind"), [((0.5, 0.2), "ema"), ((0.5, 0.3), "raw"), ((0.5, 0.4), "raw")])
def test_averaged_weights_of_the_same_rate_are_best_where_their_other_rate_is_lower(tmp_path, step, averaged, kind):
    weight = tf.Variable(1.0)
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(weight=weight))
    best = BestCheckpoint(checkpoint=state, directory=tmp_path, global_step=step)
    save = SaveBest(best=best, key=("dev", "wer"), ema=EmaWeights([weight], decay=0.5))
    save({"dev": {"wer": 0.5, "cer": 0.3}, "dev-ema": dict(zip(("wer", "cer"), averaged, strict=True))})
    assert json.loads((tmp_path / "best.json").read_text())["weights"] == kind


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("test", "wer"), "best checkpoint by test: not in the evaluation, which has dev, other"),
        (("dev", "per"), "best checkpoint by dev/per: not in the evaluation, which has wer"),
        (("dev", "wer", "x"), "by dev/wer/x: not in the evaluation, which has no further names"),
    ],
)
def test_best_by_a_figure_that_is_not_there(tmp_path, step, key, message):
    save = SaveBest(best=_best(tmp_path, step), key=key)
    with pytest.raises(ValueError, match=message):
        save({"dev": {"wer": 0.5}, "other": {}})


def test_predictions_are_written_for_every_set_worst_first_and_the_last_few_are_kept(tmp_path, step):
    class Scored:
        def __init__(self, *records):
            self.predictions = lambda: list(records)

    class Data:
        utterance_ids = {3: "a", 8: "b"}
        speaker_ids = {3: "s1", 8: ""}
        duration_secs = {3: 1.23456, 8: 2.0}
        slices = {}

    dev = Scored(
        {"utterance_id": "b", "errors": 2, "hypothesis": "x"}, {"utterance_id": "a", "errors": 0, "hypothesis": "y"}
    )
    step.assign(40)
    write = writers.PredictionsWriter(
        workdir=tmp_path, scores={"dev": dev, "test": Scored()}, data={"dev": Data(), "test": Data()}, global_step=step
    )
    write({})
    assert [list(line.values()) for line in files.read_jsonl(tmp_path / "eval/dev/predictions.jsonl")] == [
        ["b", 2, "x", "", 2.0],
        ["a", 0, "y", "s1", 1.235],
    ]
    assert files.read_jsonl(tmp_path / "eval/dev/history/40.jsonl")[0] == {
        "utterance_id": "b", "hypothesis": "x", "errors": 2
    }  # fmt: skip
    assert (tmp_path / "eval/test/predictions.jsonl").read_text() == ""


def test_the_last_update_with_a_line_is_known_though_the_file_or_a_line_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_step(path) == 0
    path.write_text('{"step": 5}\n{"step": 20}\n{"step": 10}\n{"step": 9')
    assert last_step(path) == 20


def test_the_fields_of_the_manifest_stand_in_the_predictions_that_have_some(tmp_path, step):
    class Scored:
        def predictions(self):
            return [{"utterance_id": name, "errors": 0, "hypothesis": "x"} for name in "ab"]

    class Data:
        utterance_ids = {3: "a", 8: "b"}
        speaker_ids = {3: "", 8: ""}
        duration_secs = {3: 1.0, 8: 2.0}
        slices = {8: {"accent": "irish"}}

    writers.PredictionsWriter(workdir=tmp_path, scores={"dev": Scored()}, data={"dev": Data()}, global_step=step)({})
    lines = files.read_jsonl(tmp_path / "eval/dev/predictions.jsonl")
    assert "slices" not in lines[0] and lines[1]["slices"] == {"accent": "irish"}
