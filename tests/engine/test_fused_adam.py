"""Adam in one kernel: the weights of Keras's own, on one device and on two replicas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.fused_adam import FusedAdam, FusedAdamW

SCHEDULE = tf_keras.optimizers.schedules.PolynomialDecay(0.1, 10, 0.01)
OPTIONS = {"learning_rate": SCHEDULE, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3, "jit_compile": False}


def run(build, strategy, num_updates=6):
    with strategy.scope():
        variables = [tf.Variable(tf.ones([3, 5])), tf.Variable(tf.fill([5], 2.0), name="bias")]
        optimizer = build()
        optimizer.build(variables)

    @tf.function
    def update(scale):
        def on_replica():
            gradients = [scale * tf.reshape(tf.range(15.0), [3, 5]) - 3.0, scale * tf.range(5.0)]
            optimizer.apply_gradients(zip(gradients, variables, strict=True), skip_gradients_aggregation=True)

        strategy.run(on_replica)

    for i in range(num_updates):
        update(tf.constant(float(i) - 2.5))
    return [variable.numpy() for variable in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(
    ("fused", "plain", "options"),
    [(FusedAdam, tf_keras.optimizers.Adam, {}), (FusedAdamW, tf_keras.optimizers.AdamW, {"weight_decay": 0.2})],
)
def test_weights_and_slots_are_those_of_keras(fused, plain, options, two_replicas):
    for strategy in (tf.distribute.OneDeviceStrategy("/cpu:0"), two_replicas):
        wanted = run(lambda: plain(**OPTIONS, **options), strategy)
        found = run(lambda: fused(**OPTIONS, **options), strategy)
        assert len(found) == len(wanted) == 2 + 1 + 4  # weights; the step; two moments of each
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)  # roundings of weights up to 4
        assert np.abs(found[0] - 1.0).max() > 0.1


def test_an_update_is_one_kernel_for_each_variable():
    variables = [tf.Variable(tf.ones([4])), tf.Variable(tf.ones([2]))]
    optimizer = FusedAdam(0.1, jit_compile=False)
    optimizer.build(variables)

    @tf.function
    def update():
        optimizer.apply_gradients([(tf.ones_like(v), v) for v in variables], skip_gradients_aggregation=True)

    graph = update.get_concrete_function().graph
    names = [operation.type for operation in graph.get_operations()]
    assert names.count("ResourceApplyAdam") == 2
    assert sum(name.startswith("Assign") for name in names) == 1  # the step's counter
