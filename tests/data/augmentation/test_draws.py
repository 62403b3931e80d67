"""Random numbers depend on their key alone, and stay the same between versions of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from data.augmentation.draws import EVALUATION, TRAINING, Draws, between, whole_between


def test_a_key_gives_the_same_numbers_and_another_key_others():
    draws = Draws(seed=3, purpose=TRAINING)
    first = draws.uniform("noise", 0, 17, count=4)
    np.testing.assert_array_equal(first, Draws(seed=3, purpose=TRAINING).uniform("noise", 0, 17, count=4))
    others = [
        draws.uniform("room", 0, 17, count=4),
        draws.uniform("noise", 1, 17, count=4),
        draws.uniform("noise", 0, 18, count=4),
        Draws(seed=4, purpose=TRAINING).uniform("noise", 0, 17, count=4),
        Draws(seed=3, purpose=EVALUATION).uniform("noise", 0, 17, count=4),
    ]
    assert not any(np.isclose(first, other).any() for other in others)


def test_the_numbers_are_those_of_this_projects_first_version():
    found = Draws(seed=0, purpose=TRAINING).bits("noise", 1, 2, count=3)
    assert [hex(value) for value in found.tolist()] == [
        "0x9f57c99c763b2a56",
        "0x200c7111c2860b2e",
        "0xeeda758838d1ba36",
    ]


def test_a_place_in_a_stream_has_the_numbers_that_the_whole_stream_has_there():
    draws = Draws(seed=3, purpose=TRAINING)
    whole = draws.uniform("silence", 7, count=60)
    for start in range(50):
        np.testing.assert_array_equal(draws.uniform("silence", 7, count=6, start=start), whole[start : start + 6])


def test_uniform_numbers_fill_their_range_and_normal_ones_have_unit_variance():
    draws = Draws(seed=0, purpose=TRAINING)
    uniform = draws.uniform("a", count=50_000)
    assert 0.0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1.0
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    normal = draws.normal("b", count=50_000)
    assert normal.dtype == np.float32
    assert (normal.mean(), normal.std()) == pytest.approx((0.0, 1.0), abs=0.02)


def test_a_range_holds_its_ends():
    assert (between((5.0, 30.0), 0.0), between((5.0, 30.0), 0.5), between((10.0, 10.0), 0.7)) == (5.0, 17.5, 10.0)
    found = {whole_between((3, 7), unit) for unit in np.linspace(0.0, 0.999, 50)}
    assert found == {3, 4, 5, 6, 7} and whole_between((2, 2), 0.99) == 2
