"""Two runs that are the same pass; every planted difference is found, down to one bit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpointing.best import BestCheckpoint
from engine.resume_check.run_comparison import compare_runs

NAMES = [
    "losses and other metrics of training", "order of the data", "weights, optimizer and counters",
    "metrics of evaluations", "transcripts of evaluations", "best weights",
]  # fmt: skip


def make_run(workdir, *, weight=1.0, slot=2.0, lines=None, text="A B"):
    workdir.mkdir()
    lines = lines or [
        {"step": 5, "split": "train", "loss": 0.5, "input_stall_ratio": 0.25, "data_digest": "aa"},
        {"step": 10, "split": "train", "loss": 0.25, "input_stall_ratio": 0.5, "data_digest": "bb"},
        {"step": 10, "split": "dev", "wer": 0.5, "audio_secs_per_sec": 12.5},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = tf.train.Checkpoint(
        model=tf.train.Checkpoint(weight=tf.Variable(np.full([3], weight, np.float32))), slot=tf.Variable([slot])
    )
    (workdir / "checkpoints").mkdir()
    state.write(str(workdir / "checkpoints/ckpt-10"))
    best = BestCheckpoint(checkpoint=state, directory=workdir / "best", global_step=tf.Variable(10))
    best.save_if_better(0.5, metric="dev/wer")
    (workdir / "eval/dev").mkdir(parents=True)
    (workdir / "eval/dev/predictions.jsonl").write_text(json.dumps({"utterance_id": "u", "hypothesis": text}) + "\n")
    return workdir


@pytest.fixture
def runs(tmp_path):
    one = make_run(tmp_path / "one")
    shutil.copytree(one, tmp_path / "other")
    return one, tmp_path / "other"


def different(one, other):
    return {check.name: check for check in compare_runs(one, other) if check.num_different}


def test_the_same_run_passes_whatever_the_clock_says(runs):
    text = (runs[1] / "metrics.jsonl").read_text()
    (runs[1] / "metrics.jsonl").write_text(text.replace("0.25,", "0.25,", 1).replace("12.5", "99.0"))
    checks = compare_runs(*runs)
    assert [check.name for check in checks] == NAMES
    assert [check.num_different for check in checks] == [0] * 6
    # Three figures a line of training, two digests, three tensors with the number of the checkpoint ...
    assert [check.num_compared for check in checks] == [6, 2, 3, 3, 1, 3]


@pytest.mark.parametrize(
    ("old", "new", "name", "said"),
    [
        ('"loss": 0.25', '"loss": 0.25000000000000006', NAMES[0], "update 10, train, loss: 0.25 in one, 0.2500"),
        ('"bb"', '"bc"', NAMES[1], "up to update 10: bb in one, bc in the other"),
        ('"wer": 0.5', '"wer": 0.25', NAMES[3], "update 10, dev, wer: 0.5 in one, 0.25"),
    ],
)
def test_a_planted_figure_is_found(runs, old, new, name, said):
    path = runs[1] / "metrics.jsonl"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    found = different(*runs)
    assert list(found) == [name]
    assert found[name].num_different == 1
    assert said in found[name].first_difference


def test_one_bit_of_one_tensor_is_found(tmp_path):
    one = make_run(tmp_path / "one")
    other = make_run(tmp_path / "other", slot=np.nextafter(np.float32(2.0), np.float32(3.0)))
    found = different(one, other)
    assert list(found) == [NAMES[2], NAMES[5]]
    assert (found[NAMES[2]].num_different, found[NAMES[2]].first_difference) == (
        1, "slot: 4 bytes in one, 4 bytes in the other",
    )  # fmt: skip


def test_a_line_that_is_missing_or_comes_twice_is_found(runs):
    path = runs[1] / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    assert "update 10, train, line 2 of it, step: absent in one" in different(*runs)[NAMES[0]].first_difference
    path.write_text("".join([lines[0], lines[2]]))
    assert "update 10, train, step: 10 in one, absent" in different(*runs)[NAMES[0]].first_difference


def test_other_transcripts_and_a_lost_checkpoint_are_found(runs, tmp_path):
    (runs[1] / "eval/dev/predictions.jsonl").write_text('{"utterance_id": "u", "hypothesis": "A C"}\n')
    shutil.rmtree(runs[1] / "checkpoints")
    found = different(*runs)
    assert list(found) == [NAMES[2], NAMES[4]]
    assert found[NAMES[2]].num_different == 3
