"""Health figures against NumPy, and the words made of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from engine.training import frame_statistics


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
    found = tf.function(frame_statistics.frame_sums)(logits, num_frames, label_lengths, valid)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
