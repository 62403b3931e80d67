"""The head's own learning rate against the closed form of Adam's first step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.training.optimizer import build_optimizer
from engine.training.schedules import build_schedule
from tests.engine.training.test_trainer import assert_same, make_trainer, train
from tests.helpers.engine_toys import ToyModel

FACTOR, RATE, DECAY = 8.0, 0.01, 0.1


def make_optimizer(model, name="adam", learning_rate=RATE, factor=FACTOR, **options):
    optimizer = build_optimizer(
        name=name,
        learning_rate=learning_rate,
        head_variables=model.head_variables,
        head_learning_rate_factor=factor,
        **options,
    )
    optimizer.build(model.trainable_variables)
    return optimizer


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_first_step_is_the_rate_of_each_part(two_replicas, replicas, name):
    """Adam's first step is rate * sign(gradient), whatever its size; before it comes rate * decay * weight."""
    strategy = two_replicas if replicas == 2 else tf.distribute.OneDeviceStrategy("/cpu:0")
    decay = DECAY if name == "adamw" else 0.0
    with strategy.scope():
        model = ToyModel()
        optimizer = make_optimizer(model, name, weight_decay=decay)
    before = [v.numpy() for v in model.trainable_variables]
    gradients = [np.random.default_rng(i).normal(size=v.shape).astype(np.float32) for i, v in enumerate(before)]

    @tf.function
    def step():
        pairs = list(zip(map(tf.constant, gradients), model.trainable_variables, strict=True))
        strategy.run(lambda: optimizer.apply_gradients(pairs, skip_gradients_aggregation=True))

    step()
    for i, (variable, old, gradient) in enumerate(zip(model.trainable_variables, before, gradients, strict=True)):
        rate = RATE * (FACTOR if i >= 2 else 1.0)  # encoder kernel and bias, then the head's
        is_decayed = decay and i in (0, 2)
        wanted = old * (1.0 - rate * decay * is_decayed) - rate * np.sign(gradient)
        for component in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(component.numpy(), wanted, rtol=1e-4, atol=2e-6)
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(RATE)


def test_the_schedule_is_shared():
    """Two steps at rates that a schedule gives: their ratio is the same for both parts."""
    model = ToyModel()
    schedule = build_schedule(name="linear", peak_learning_rate=RATE, num_updates=4, warmup_updates=0, hold_updates=0)
    optimizer = make_optimizer(model, learning_rate=schedule)
    ones = [tf.ones_like(v) for v in model.trainable_variables]
    values = [[v.numpy() for v in model.trainable_variables]]
    for _ in range(3):
        optimizer.apply_gradients(zip(ones, model.trainable_variables, strict=True))
        values.append([v.numpy() for v in model.trainable_variables])
    for step in range(3):
        for i in range(4):
            rate = RATE * (1 - step / 4) * (FACTOR if i >= 2 else 1.0)
            np.testing.assert_allclose(values[step][i] - values[step + 1][i], rate, rtol=1e-3)


def test_replicas_accumulation_and_freezing_keep_the_weights_the_same(two_replicas):
    options = {"head_factor": FACTOR, "freeze_encoder_updates": 2}
    wanted, _ = train(make_trainer(**options))
    weights, _ = train(make_trainer(two_replicas, microbatch_rows=2, **options))
    assert_same(weights, wanted)
    plain, _ = train(make_trainer(freeze_encoder_updates=2))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(wanted, plain, strict=True))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_factor_that_is_not_positive_is_refused(factor):
    with pytest.raises(ValueError, match="train.head_learning_rate_factor must be positive"):
        make_optimizer(ToyModel(), factor=factor)
