"""The record that searches return."""

import dataclasses

import pytest

from models.hypotheses import Hypothesis


def test_a_hypothesis_is_a_value():
    found = Hypothesis((1, 2), -3.5)
    assert (found, found.lm_score) == (Hypothesis((1, 2), -3.5, 0.0), 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.score = 0.0
