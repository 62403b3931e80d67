"""Learning rates at the corners of every schedule, eagerly and in a graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.schedules import WarmupHoldDecay, build_schedule

PEAK = 5e-5


def _rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_tri_stage_as_published():
    schedule = build_schedule(
        name="tri_stage",
        peak_learning_rate=PEAK,
        num_updates=1000,
        warmup_updates=100,
        hold_updates=400,
    )
    expected = {
        0: 0.01 * PEAK,
        1: (0.01 + 0.99 * 1 / 100) * PEAK,
        50: 0.505 * PEAK,
        100: PEAK,
        499: PEAK,
        500: PEAK,
        750: math.sqrt(0.05) * PEAK,
        999: 0.05 ** (499 / 500) * PEAK,
        1000: 0.05 * PEAK,
        5000: 0.05 * PEAK,
    }
    np.testing.assert_allclose(_rates(schedule, expected), list(expected.values()), rtol=1e-6)


def test_tri_stage_decays_by_a_constant_factor():
    schedule = build_schedule(
        name="tri_stage", peak_learning_rate=1.0, num_updates=60, warmup_updates=0, hold_updates=10
    )
    rates = np.array(_rates(schedule, range(10, 61)))
    np.testing.assert_allclose(rates[1:] / rates[:-1], 0.05 ** (1 / 50), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "middle", "last", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 0.5, 1 / 80, 0.0),
        ("cosine", 0.5, 0.5 * (1 + math.cos(math.pi * 79 / 80)), 0.0),
    ],
)
def test_other_shapes(name, middle, last, end):
    schedule = build_schedule(name=name, peak_learning_rate=2.0, num_updates=100, warmup_updates=20, initial_scale=0.0)
    rates = _rates(schedule, [0, 10, 20, 60, 99, 100, 101])
    expected = [0.0, 0.5, 1.0, middle, last, end, end]
    np.testing.assert_allclose(rates, 2.0 * np.array(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine", "tri_stage"])
def test_final_scale_and_hold_hold_for_every_shape(name):
    schedule = build_schedule(
        name=name,
        peak_learning_rate=1.0,
        num_updates=40,
        warmup_updates=10,
        hold_updates=10,
        final_scale=0.25,
    )
    rates = _rates(schedule, [0, 10, 15, 20, 30, 40])
    middle = {"linear": 0.625, "cosine": 0.625, "tri_stage": 0.5}[name]
    np.testing.assert_allclose(rates, [0.01, 1.0, 1.0, 1.0, middle, 0.25], rtol=1e-6)


def test_no_warmup_starts_at_the_peak():
    schedule = build_schedule(name="linear", peak_learning_rate=1.0, num_updates=4, warmup_updates=0)
    np.testing.assert_allclose(_rates(schedule, range(5)), [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-7)


def test_warmup_and_hold_may_fill_the_whole_training():
    schedule = build_schedule(
        name="tri_stage", peak_learning_rate=1.0, num_updates=10, warmup_updates=4, hold_updates=6
    )
    assert _rates(schedule, [4, 9]) == [1.0, 1.0]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "tri_stage"])
def test_graph_with_an_int64_global_step_agrees_with_eager(name, jit_compile):
    schedule = build_schedule(name=name, peak_learning_rate=PEAK, num_updates=20, warmup_updates=5, hold_updates=5)
    step = tf.Variable(0, dtype=tf.int64)
    in_graph = tf.function(lambda: schedule(step), jit_compile=jit_compile)
    for value in (0, 3, 5, 10, 13, 19, 20):
        step.assign(value)
        rate = in_graph()
        assert rate.dtype == tf.float32
        assert rate.shape == ()
        np.testing.assert_allclose(rate, schedule(value), rtol=1e-6)


def test_long_trainings_lose_no_update_to_rounding():
    start = 2**25
    schedule = build_schedule(
        name="linear",
        peak_learning_rate=1.0,
        num_updates=start + 4,
        warmup_updates=0,
        hold_updates=start,
    )
    rates = _rates(schedule, range(start, start + 5))
    np.testing.assert_allclose(rates, [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-7)


def test_config_rebuilds_the_schedule():
    schedule = build_schedule(name="cosine", peak_learning_rate=PEAK, num_updates=30, warmup_updates=3, final_scale=0.1)
    again = WarmupHoldDecay.from_config(schedule.get_config())
    assert _rates(again, range(31)) == _rates(schedule, range(31))
    assert isinstance(again, tf_keras.optimizers.schedules.LearningRateSchedule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "step"}, "'step'; choose one of constant, linear, cosine, tri_stage"),
        ({"peak_learning_rate": 0.0}, "peak_learning_rate must be positive, got 0.0"),
        ({"peak_learning_rate": math.inf}, "peak_learning_rate must be positive, got inf"),
        ({"num_updates": 0, "warmup_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"warmup_updates": -1}, r"warmup_updates \(-1\)"),
        ({"hold_updates": 9}, r"hold_updates \(9\) must be at least 0 and fit into .*\(10\)"),
        ({"initial_scale": 1.5}, r"initial_scale must be in \[0, 1\], got 1.5"),
        ({"final_scale": -0.1}, r"final_scale must be in \[0, 1\], got -0.1"),
        ({"name": "tri_stage", "final_scale": 0.0}, "positive for tri_stage"),
        ({"name": "constant", "final_scale": 0.5}, "must be 1 for the constant"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    arguments = {
        "name": "linear",
        "peak_learning_rate": 1.0,
        "num_updates": 10,
        "warmup_updates": 2,
    }
    with pytest.raises(ValueError, match=message):
        build_schedule(**(arguments | change))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "tri_stage"])
def test_shares_of_the_run_are_the_same_schedule_as_their_numbers(name):
    numbers = build_schedule(name=name, peak_learning_rate=1.0, num_updates=1000, warmup_updates=100, hold_updates=400)
    shares = build_schedule(
        name=name, peak_learning_rate=1.0, num_updates=1000, warmup_updates=0, warmup_ratio=0.1, hold_ratio=0.4
    )
    assert shares.get_config() == numbers.get_config()
    mixed = build_schedule(name=name, peak_learning_rate=1.0, num_updates=1000, warmup_updates=100, hold_ratio=0.4)
    assert mixed.get_config() == numbers.get_config()


def test_shares_that_fill_the_run_never_exceed_it_by_rounding():
    for num_updates in range(1, 60):
        for warmup_ratio in (0.1, 0.25, 0.5, 0.75):
            config = build_schedule(
                name="linear", peak_learning_rate=1.0, num_updates=num_updates, warmup_updates=0,
                warmup_ratio=warmup_ratio, hold_ratio=1.0 - warmup_ratio,
            ).get_config()  # fmt: skip
            assert config["warmup_updates"] + config["hold_updates"] == num_updates


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_ratio": 0.1}, "train.warmup_ratio=0.1 and train.warmup_updates=2 are both set; set one of them to 0"),
        ({"hold_updates": 3, "hold_ratio": 0.2}, "train.hold_ratio=0.2 and train.hold_updates=3 are both set"),
        ({"warmup_updates": 0, "warmup_ratio": 0.7, "hold_ratio": 0.4}, "at most 1; the rest of the run is"),
        ({"hold_ratio": -0.5}, "train.hold_ratio=-0.5 must be at least 0"),
        ({"hold_ratio": math.nan}, "train.hold_ratio=nan must be"),
    ],
)
def test_shares_that_contradict_are_refused_by_their_fields(change, message):
    arguments = {"name": "linear", "peak_learning_rate": 1.0, "num_updates": 10, "warmup_updates": 2}
    with pytest.raises(ValueError, match=message):
        build_schedule(**(arguments | change))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "tri_stage"])
@pytest.mark.parametrize(("warmup", "hold"), [(3, 4), (0, 0), (0, 5), (5, 0), (10, 0)])
def test_updates_shared_with_a_longer_run_have_the_same_rates_and_the_next_has_not(name, warmup, hold):
    shorter, longer = (
        build_schedule(
            name=name, peak_learning_rate=1.0, num_updates=n, warmup_updates=warmup, hold_updates=hold,
            initial_scale=0.0,
        )
        for n in (10, 20)
    )  # fmt: skip
    shared = min(shorter.num_updates_shared_with(longer), 10)
    assert shared == (10 if name == "constant" else min(warmup + hold + 1, 10))
    assert _rates(shorter, range(shared)) == _rates(longer, range(shared))
    if shared < 10:
        assert _rates(shorter, [shared]) != _rates(longer, [shared])
    assert longer.num_updates_shared_with(shorter) == shorter.num_updates_shared_with(longer)


def test_a_warm_up_that_grows_with_the_run_shares_nothing_and_a_hold_that_grows_only_its_beginning():
    def build(num_updates, **more):
        arguments = {"peak_learning_rate": 1.0, "warmup_updates": 0, "num_updates": num_updates, **more}
        return build_schedule(name=arguments.pop("name", "tri_stage"), **arguments)

    for name in ("constant", "tri_stage"):
        grown = {"warmup_ratio": 0.5, "name": name}
        assert build(10, **grown).num_updates_shared_with(build(20, **grown)) == 0
    assert build(10, hold_ratio=0.5).num_updates_shared_with(build(20, hold_ratio=0.5)) == 6
