"""The float64 oracle is right, and the losses stay within what docs/results/0141 says of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ctc_error
from tests.models.ctc.test_loss import brute_force


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [2, 1, 1]])
def test_the_oracle_sums_all_paths_and_its_gradient_is_the_slope(labels):
    logits = np.random.default_rng(0).normal(size=(5, 3))

    def loss_of(x):
        return brute_force(x - np.log(np.exp(x).sum(axis=1, keepdims=True)), labels)

    loss, gradient = ctc_error.oracle(logits, np.array(labels))
    assert loss == pytest.approx(loss_of(logits), rel=1e-12)
    for frame, token in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[frame, token] = 1e-5
        slope = (loss_of(logits + moved) - loss_of(logits - moved)) / 2e-5
        assert gradient[frame, token] == pytest.approx(slope, abs=1e-8)


def test_five_seconds_are_as_exact_as_measured():
    found = ctc_error.measure(249, 60, 32, 1.0)
    assert found["loss"] > 600.0
    assert max(found["ours loss"], found["sparse loss"], found["dense loss"]) < 1e-6
    assert found["ours"] < 1e-6 < found["dense"] < 5e-6 < found["sparse"] < 5e-4


def test_where_a_model_is_sure_and_wrong_only_ours_is_right():
    found = ctc_error.measure(99, 25, 32, 100.0)
    assert found["ours loss"] < 1e-6 and found["ours"] < 1e-6
    assert found["sparse loss"] > 1e-3 and found["sparse"] > 0.1


def test_time_is_measured_compiled_and_not():
    batch = ctc_error.make_batch(2, 8, 2, 5, scale=1.0)
    assert all(ctc_error.milliseconds(ctc_error.ours, batch, jit_compile=jit) > 0.0 for jit in (False, True))
