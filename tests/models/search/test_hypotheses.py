"""What searches are given and return."""

import dataclasses

import numpy as np
import pytest

from models.search.hypotheses import Hypothesis, finite_log_probs


def test_a_hypothesis_is_a_value():
    found = Hypothesis((1, 2), -3.5)
    assert (found, found.lm_score) == (Hypothesis((1, 2), -3.5, 0.0), 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.score = 0.0


def test_log_probs_of_a_diverged_model_become_finite_and_others_stay():
    found = finite_log_probs(np.array([[np.nan, -np.inf, -2.5, -1e9]]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[-1e4, -1e4, -2.5, -1e4]])
