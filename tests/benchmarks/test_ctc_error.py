"""The float64 oracle is right, and both back ends stay within what docs/results/0041 says of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ctc_error
from tests.models.test_ctc import brute_force


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


def test_the_gradients_of_five_seconds_are_as_exact_as_measured():
    found = ctc_error.measure(249, 60, 1.0)
    assert found["loss"] > 600.0
    assert max(found["sparse loss"], found["dense loss"]) < 1e-6
    assert found["dense"] < 5e-6
    assert found["sparse"] < 5e-4
