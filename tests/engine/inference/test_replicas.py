"""A batch on two replicas gives what one replica gives, whatever the number of rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.inference import loading
from engine.inference.replicas import ReplicaStep
from tests.engine.inference.test_loading import WAVEFORM, make_parts, trained  # noqa: F401 - a fixture


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5])
def test_rows_come_back_in_their_order(strategy, num_rows):
    seen = []

    def step(waveforms, lengths):
        seen.append(waveforms.shape[0])
        return waveforms[:, :3] * 2.0, lengths + 1

    waveforms = np.arange(num_rows * 4, dtype=np.float32).reshape(num_rows, 4)
    lengths = np.arange(num_rows, dtype=np.int32)
    found, num_frames = ReplicaStep(step, strategy)(waveforms, lengths)
    np.testing.assert_array_equal(found, waveforms[:, :3] * 2.0)
    np.testing.assert_array_equal(num_frames, lengths + 1)
    assert len(seen) >= 2  # each replica traces its own share


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_transcriber_on_two_replicas_computes_what_one_computes(trained, strategy, jit_compile):  # noqa: F811
    one = loading.load_transcriber(parts=make_parts(), checkpoint=trained[0])
    two = loading.load_transcriber(
        parts=make_parts(), checkpoint=trained[0], strategy=strategy, jit_compile=jit_compile
    )
    rows = [WAVEFORM[:length] for length in (40, 12, 36, 24, 8)]
    for expected, found in zip(one.log_probs(rows), two.log_probs(rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
