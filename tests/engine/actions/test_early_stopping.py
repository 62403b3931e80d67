"""Early stopping: at the exact evaluation, over restarts, by the better of raw and averaged weights."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from engine.actions.early_stopping import EarlyStopping, StopEarly


def make(tmp_path, patience=2, *, step=0, sets=("dev",), lines=()):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    early = EarlyStopping(
        patience=patience, sets=sets, metrics_path=path, global_step=tf.Variable(step, dtype=tf.int64)
    )
    early.begin()
    return early


def feed(early, rates, *, every=10):
    """Returns the update at which it stopped, 0 if it did not."""
    for rate in rates:
        early.global_step.assign_add(every)
        figures = rate if isinstance(rate, dict) else {"dev": rate}
        try:
            early({name: {"wer": value} for name, value in figures.items()})
        except StopEarly:
            return int(early.global_step.numpy())
    return 0


@pytest.mark.parametrize(
    ("rates", "stopped_at"),
    [
        ([0.9, 0.8, 0.7, 0.6], 0),
        ([0.9, 0.5, 0.5, 0.4, 0.6], 0),
        ([0.9, 0.5, 0.6, 0.5, 0.1], 40),  # equal is not better
        ([0.5, 0.6, 0.6], 30),
        ([1.0, 1.0, 1.0], 30),
    ],
)
def test_two_evaluations_without_a_lower_rate_end_the_run(tmp_path, rates, stopped_at):
    assert feed(make(tmp_path), rates) == stopped_at


def test_no_patience_never_stops_and_a_negative_one_is_refused(tmp_path):
    assert feed(make(tmp_path, 0), [0.5] * 20) == 0
    with pytest.raises(ValueError, match="eval.early_stopping_patience must be at least 0, got -1"):
        make(tmp_path, -1)


def test_the_better_of_raw_and_averaged_weights_counts(tmp_path):
    falling = [{"dev": 0.5, "dev-ema": 0.5 - i / 20} for i in range(6)]
    assert feed(make(tmp_path, sets=("dev", "dev-ema")), falling) == 0
    assert feed(make(tmp_path, sets=("dev",)), falling) == 30


def test_a_restart_knows_the_evaluations_before_it_and_counts_each_once(tmp_path):
    lines = [
        {"step": 10, "split": "train", "loss": 3.0},
        {"step": 10, "split": "dev", "wer": 0.5},
        {"step": 10, "split": "other", "wer": 0.1},
        {"step": 20, "split": "dev", "wer": 0.6},
        {"step": 10, "split": "dev", "wer": 0.5},  # --mode=eval of the best checkpoint, afterwards
        {"step": 40, "split": "dev", "wer": 0.9},  # past the restored checkpoint
    ]
    early = make(tmp_path, step=20, lines=lines)
    assert early.reason == ""
    assert feed(early, [0.7]) == 30
    with pytest.raises(StopEarly) as ended:
        make(tmp_path, step=40, lines=lines)
    assert str(ended.value) == (
        "early stopping: the WER of dev has not fallen below the 50.00 % of update 10 in 2 evaluations "
        "(eval.early_stopping_patience=2)"
    )
    assert make(tmp_path, 3, step=40, lines=lines).reason == ""


def test_rates_of_another_set_under_the_same_name_do_not_count(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    digests = ["old", "old", "new", None]
    lines = [
        {"step": step, "split": "dev", "wer": wer} | ({"set_digest": digest} if digest else {})
        for step, wer, digest in zip((10, 20, 30, 40), (0.1, 0.1, 0.9, 0.8), digests, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = tf.Variable(40, dtype=tf.int64)
    early = EarlyStopping(patience=2, sets=("dev",), metrics_path=path, global_step=step, set_digest="new")
    early.begin()  # 0.9, then 0.8 of a line that does not say: it still falls
    assert "2 lines are of an earlier version of the set dev" in caplog.text
    assert feed(early, [0.7, 0.7, 0.7]) == 70
    with pytest.raises(StopEarly):
        EarlyStopping(patience=2, sets=("dev",), metrics_path=path, global_step=step).begin()


def test_by_the_character_error_rate_a_stuck_word_error_rate_stops_nothing(tmp_path):
    lines = [{"step": step, "split": "dev", "wer": 1.0, "cer": 1.0 - step / 100} for step in (10, 20, 30, 40)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = tf.Variable(40, dtype=tf.int64)
    early = EarlyStopping(patience=2, sets=("dev",), metrics_path=path, global_step=step, metric="cer")
    early.begin()
    step.assign(50)
    early({"dev": {"wer": 0.1, "cer": 0.7}})
    step.assign(60)
    with pytest.raises(StopEarly, match="the CER of dev has not fallen below the 60.00 % of update 40"):
        early({"dev": {"wer": 0.0, "cer": 0.6}})
