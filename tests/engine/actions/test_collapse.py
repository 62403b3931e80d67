"""The warning of a training that does not learn, on what real runs logged (docs/decisions/0037)."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf

from engine.actions.collapse import CollapseWatch

# Blank shares, one for ten updates, of the quickstart's recipe on 1,500 synthetic utterances: as it is, at a learning
# rate of 0.1, with shuffled transcripts; and of the digits recipe. Later figures are rounded, or repeat the last.
HEALTHY = [0.742, 1, 1, 1, 1, 1, 1, 1, 0.999, 0.989, 0.977, 0.951, 0.917, 0.864, 0.831, 0.842, 0.813, 0.811]
HEALTHY += [0.764, 0.739] + [0.668] * 10 + [0.58] * 10 + [0.52] * 30
ABSURD = [0.898] + [1.0] * 69
UNFIT = [0.739] + [1.0] * 17 + [0.999, 0.994, 0.989, 0.994, 0.992, 0.994, 0.986, 0.98, 0.984, 0.979, 0.974]
UNFIT += [0.973, 0.967, 0.977, 0.976, 0.977, 0.969, 0.98, 0.963, 0.956, 0.966, 0.964, 0.967, 0.966, 0.966, 0.966]
DIGITS = [0.318, 1, 1, 1, 1, 1, 1, 0.998, 0.949, 0.955, 0.919, 0.911, 0.9, 0.902, 0.897, 0.879]
DIGITS += [0.85] * 10 + [0.7] * 20


def feed(shares, *, num_updates=1600, first_updates=60, labels_per_frame=0.25, start=0):
    """Returns the updates at which there was a warning, and the watch."""
    step = tf.Variable(start, dtype=tf.int64)
    watch = CollapseWatch(global_step=step, num_updates=num_updates, first_updates=first_updates)
    return _feed(watch, step, shares, labels_per_frame), watch, step


def _feed(watch, step, shares, labels_per_frame=0.25):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((int(step.numpy()), record.getMessage()))
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    try:
        for share in shares:
            step.assign_add(10)
            watch({"blank_ratio": share, "labels_per_frame": labels_per_frame})
    finally:
        logger.removeHandler(handler)
    return lines


@pytest.mark.parametrize("shares", [HEALTHY, DIGITS])
def test_a_healthy_run_is_left_alone(shares):
    assert feed(shares)[0] == []


@pytest.mark.parametrize("shares", [ABSURD, UNFIT])
def test_a_run_that_writes_only_blanks_is_warned_of_once(shares):
    ((step, line),) = feed(shares)[0]
    assert step == 360  # 300 updates after the warm-up
    assert line.startswith("training has not begun to learn: for 300 updates")
    assert "train.learning_rate" in line and "transcripts belong" in line and "\n" not in line


def test_a_run_that_has_learned_and_falls_back_to_blanks_has_collapsed():
    lines, watch, step = feed(HEALTHY)
    assert lines == []
    ((at, line),) = _feed(watch, step, [1.0] * 50)
    assert at == 700 + 10 + 300
    assert line.startswith("training has collapsed to blanks")
    assert _feed(watch, step, [0.5] * 3) == []
    assert len(_feed(watch, step, [1.0] * 50)) == 1  # anew, after it had recovered


def test_silence_in_the_recordings_is_no_collapse():
    """One character in fifty frames: 98 % blanks are what is right."""
    assert feed([0.98] * 200, labels_per_frame=0.02)[0] == []


def test_frozen_and_warming_up_updates_do_not_count_and_long_runs_have_more_time():
    assert feed([1.0] * 130, first_updates=1000)[0][0][0] == 1300
    assert feed([1.0] * 130, first_updates=1100)[0] == []
    assert feed([1.0] * 400, num_updates=80_000, first_updates=0)[0][0][0] == 3010


def test_a_loop_without_any_loss_is_no_silence():
    assert feed([float("nan")] * 200)[0] == []


@pytest.mark.parametrize(
    ("cer", "deletions", "words"),
    [
        (0.3, 0, ""),
        (0.95, 20, "dev still has a CER of 95 %: the model writes text, but not the spoken one"),
        (0.98, 980, "dev still has a CER of 98 %: it misses 98 % of the characters: the model writes almost nothing"),
    ],
)
def test_where_characters_decide_the_warning_is_about_characters(caplog, cer, deletions, words):
    watch = CollapseWatch(global_step=tf.Variable(400), num_updates=1000, first_updates=0, metric="cer")
    with caplog.at_level(logging.WARNING, logger="absl"):
        # A single right word would keep the warning back if words decided.
        metrics = {"wer": 0.9, "cer": cer, "deletions": 0, "num_words": 10, "char_deletions": deletions}
        watch.after_evaluation({"dev": {**metrics, "num_chars": 1000}})
    assert words in caplog.text and bool(caplog.records) == bool(words)


@pytest.mark.parametrize(
    ("wer", "cer", "deletions", "step", "words"),
    [
        (1.0, 0.98, 100, 400, "dev still has a WER of 100 % and a CER of 98 %: it misses 100 % of the words"),
        (1.0, 0.8, 20, 400, "the model writes text, but not the spoken one"),
        (1.0, 1.0, 100, 300, ""),  # too early to say
        (0.9, 0.9, 80, 400, ""),
        (1.0, 0.3, 0, 400, ""),  # Chinese, Japanese, Thai: a sentence is one word, and it does learn
        (1.0, 0.95, 0, 400, "the model writes text, but not the spoken one"),  # and here it does not
    ],
)
def test_a_rate_stuck_at_the_top_is_explained(caplog, wer, cer, deletions, step, words):
    _, watch, _ = feed([], start=step)
    with caplog.at_level(logging.WARNING, logger="absl"):
        watch.after_evaluation({"dev": {"wer": wer, "cer": cer, "deletions": deletions, "num_words": 100}})
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(words)
    assert words in "".join(messages)
