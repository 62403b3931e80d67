"""Health figures against NumPy, and the words made of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf

from engine import health


def make_figures(**changes):
    figures = {
        "num_rows": 320.0,
        "num_infeasible": 0.0,
        "blank_share": 0.981,
        "mean_confidence": 0.625,
        "gradient_norm": 3.4142,
        "num_skipped_updates": 0.0,
    }
    return {**figures, **changes}


def test_frame_sums_count_valid_frames_of_rows_that_have_a_loss():
    logits = np.random.default_rng(0).normal(size=(4, 7, 5)).astype(np.float32) * 3
    logits[0, :3, 0] = 9.0
    label_lengths = np.array([3, 2, 50, 0])
    num_frames, valid = np.array([7, 5, 6, 0]), np.array([1.0, 1.0, 0.0, 1.0], np.float32)
    logits[2] = np.nan  # of a row that does not count
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = np.array([0, 0, 0, 5.0])
    for row, frames in ((0, 7), (1, 5)):
        for frame in range(frames):
            best = probs[row, frame].argmax()
            wanted += [1, best == 0, probs[row, frame, best], 0]
    assert wanted[1] >= 3
    found = tf.function(health.frame_sums)(logits, num_frames, label_lengths, valid)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_line_says_in_words_what_happened():
    assert health.describe(make_figures()) == (
        "blank in 98.1 % of frames, mean confidence 0.62, gradient norm 3.41, 0 of 320 rows zeroed"
    )
    line = health.describe(make_figures(num_infeasible=2.0, num_skipped_updates=1.0))
    assert line.endswith(
        "2 of 320 rows zeroed (more text than their frames can hold), "
        "1 updates skipped (loss or gradient not finite, or no row with a loss)"
    )


def test_a_loop_without_any_loss_still_has_its_line():
    line = health.describe(make_figures(blank_share=float("nan"), mean_confidence=float("nan")))
    assert "blank in nan % of frames" in line


def test_the_action_logs_one_line_with_the_update(caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        health.HealthLog(global_step=tf.Variable(40, dtype=tf.int64))(make_figures())
    assert [record.getMessage() for record in caplog.records] == [
        f"health at update 40: {health.describe(make_figures())}"
    ]


@pytest.mark.parametrize("name", health.FRAME_SUMS)
def test_names_are_those_that_the_trainer_sums_up(name):
    from engine import trainer

    assert trainer._STATISTICS[1 + health.FRAME_SUMS.index(name)] == name
