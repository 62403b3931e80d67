"""AdamW against NumPy, on one device and on two replicas; clipping; the loss scale."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.optimizer import (
    DynamicLossScale,
    build_optimizer,
    clip_by_global_norm,
    has_weight_decay,
)
from engine.training.schedules import build_schedule

_COLLECTIVE_KEY_BASES = itertools.count(2_000_000, 100_000)
SETTINGS = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6}
DECAY = 0.1


@pytest.fixture(params=["one device", "two replicas"])
def strategy(request, monkeypatch):
    if request.param == "one device":
        return tf.distribute.OneDeviceStrategy("cpu:0")
    # TensorFlow numbers the collective operations of every strategy from the same start and keeps
    # their shapes for the life of the process: a second strategy on the same devices would meet
    # those of the first. Its own tests move the start too.
    base = next(_COLLECTIVE_KEY_BASES)
    monkeypatch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", base)
    return tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])


class _Norm(tf_keras.layers.Layer):
    """Names its variables the long way round, as models/ does."""

    def __init__(self):
        super().__init__(name="norm")
        self.scale = self.add_weight(name="block_0/layer_norm/scale", shape=(2,), initializer="ones")

    def call(self, x):
        return x * self.scale


class _Block(tf_keras.layers.Layer):
    """Plain add_weight in build and in __init__, and a Keras layer inside."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(2, 2), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(2,), initializer="ones")
        self.norm = _Norm()
        self.inner = tf_keras.layers.LayerNormalization(name="inner")
        # Built by hand, its variables do not have its name in theirs.
        self.inner.build((None, 2))
        self.inner.beta.assign([1.0, 1.0])
        super().build(shape)

    def call(self, x):
        return self.inner(self.norm(tf.matmul(x, self.kernel) + self.bias))


def _schedule():
    return build_schedule(name="tri_stage", peak_learning_rate=0.1, num_updates=6, warmup_updates=2, hold_updates=1)


def _make(strategy):
    with strategy.scope():
        model = _Block(name="block")
        model.build((None, 2))
        optimizer = build_optimizer(name="adamw", learning_rate=_schedule(), weight_decay=DECAY, **SETTINGS)
        optimizer.build(model.trainable_variables)
    return model, optimizer


def _update_fn(strategy, model, optimizer):
    """One update as the trainer makes it: reduce in replica context, apply without aggregation."""

    @tf.function
    def update(gradients):
        def step():
            context = tf.distribute.get_replica_context()
            share = 1.0 / strategy.num_replicas_in_sync
            local = [gradient * share for gradient in gradients]
            reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, local)
            pairs = zip(reduced, model.trainable_variables, strict=True)
            optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

        strategy.run(step)

    return update


def _gradients(model, step):
    rng = np.random.default_rng(step)
    return [tf.constant(rng.normal(size=variable.shape), tf.float32) for variable in model.trainable_variables]


def _numpy_adamw(values, gradients_of_steps, decays):
    """Textbook AdamW; float64."""
    values = [value.astype(np.float64) for value in values]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for step, gradients in enumerate(gradients_of_steps):
        rate = float(_schedule()(step))
        for i, gradient in enumerate(gradients):
            gradient = gradient.numpy().astype(np.float64)
            if decays[i]:
                values[i] -= rate * DECAY * values[i]
            first[i] = SETTINGS["beta_1"] * first[i] + (1 - SETTINGS["beta_1"]) * gradient
            second[i] = SETTINGS["beta_2"] * second[i] + (1 - SETTINGS["beta_2"]) * gradient**2
            mean = first[i] / (1 - SETTINGS["beta_1"] ** (step + 1))
            mean_square = second[i] / (1 - SETTINGS["beta_2"] ** (step + 1))
            values[i] -= rate * mean / (np.sqrt(mean_square) + SETTINGS["epsilon"])
    return values


def test_three_updates_equal_numpy_and_spare_biases_and_norms(strategy):
    model, optimizer = _make(strategy)
    names = [variable.name.split(":")[0] for variable in model.trainable_variables]
    assert sorted(names) == ["beta", "bias", "block_0/layer_norm/scale", "gamma", "kernel"]
    decays = [name == "kernel" for name in names]
    start = [variable.numpy() for variable in model.trainable_variables]
    gradients = [_gradients(model, step) for step in range(3)]
    update = _update_fn(strategy, model, optimizer)
    for step in range(3):
        update(gradients[step])
        np.testing.assert_allclose(optimizer.learning_rate.numpy(), float(_schedule()(step)))
    expected = _numpy_adamw(start, gradients, decays)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy.numpy(), value, rtol=2e-6, atol=1e-7)
    assert int(optimizer.iterations.numpy()) == 3
    # The check above would not notice a decay that does nothing.
    without = _numpy_adamw(start, gradients, [False] * 5)
    kernel = names.index("kernel")
    assert np.abs(without[kernel] - expected[kernel]).min() > 1e-3


def test_restored_in_a_new_process_it_continues_bit_for_bit(strategy, tmp_path):
    model, optimizer = _make(strategy)
    update = _update_fn(strategy, model, optimizer)
    for step in range(3):
        update(_gradients(model, step))
    path = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "ckpt"))
    for step in range(3, 6):
        update(_gradients(model, step))
    expected = [variable.numpy() for variable in model.trainable_variables]

    again, optimizer_again = _make(strategy)
    with strategy.scope():
        status = tf.train.Checkpoint(model=again, optimizer=optimizer_again).restore(path)
    status.assert_consumed()
    assert int(optimizer_again.iterations.numpy()) == 3
    update_again = _update_fn(strategy, again, optimizer_again)
    for step in range(3, 6):
        update_again(_gradients(again, step))
    for variable, value in zip(again.trainable_variables, expected, strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_array_equal(copy.numpy(), value)


def test_adam_is_adamw_without_decay():
    strategy = tf.distribute.get_strategy()
    results = []
    for name in ("adam", "adamw"):
        variable = tf.Variable([1.0, -2.0], name="kernel")
        optimizer = build_optimizer(name=name, learning_rate=0.1)
        assert optimizer.jit_compile is False
        for _ in range(2):
            optimizer.apply_gradients([(tf.constant([0.3, 0.4]), variable)])
        results.append(variable.numpy())
    assert strategy.num_replicas_in_sync == 1
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0][0] < 0.9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encoder/layer_0/attention/query/kernel:0", True),
        ("encoder/layer_0/attention/query/bias:0", False),
        ("bias:0", False),
        ("bias/replica_1:0", False),
        ("encoder/norm/layer_norm/scale:0", False),
        ("encoder/layer_0/final_layer_norm/weight:0", False),
        ("encoder/layer_norm_1/weight:0", False),
        ("feature_encoder/conv_0/group_norm/offset:0", False),
        ("dense/gamma:0", False),
        ("batch/beta:0", False),
        ("upscale/kernel:0", True),
        ("unbiased/kernel:0", True),
        ("mask_embedding:0", True),
        ("positional_convolution/kernel_g:0", True),
    ],
)
def test_names_with_weight_decay(name, expected):
    assert has_weight_decay(name) is expected


def test_weight_decay_without_exclusions_takes_every_variable():
    assert has_weight_decay("bias:0", exclude=())
    variable = tf.Variable([1.0], name="bias")
    optimizer = build_optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5, exclude_from_weight_decay=())
    optimizer.apply_gradients([(tf.constant([0.0]), variable)])
    np.testing.assert_allclose(variable.numpy(), [1.0 - 0.1 * 0.5])


def test_unknown_optimizer_and_adam_with_decay_are_refused():
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; choose adam or adamw"):
        build_optimizer(name="sgd", learning_rate=0.1)
    with pytest.raises(ValueError, match="adam has no weight decay, got 0.01; use adamw"):
        build_optimizer(name="adam", learning_rate=0.1, weight_decay=0.01)


def test_large_gradients_are_scaled_by_one_factor():
    grads = [tf.constant([3.0, 0.0]), None, tf.constant([[4.0]])]
    clipped, norm = tf.function(lambda: clip_by_global_norm(grads, 1.0))()
    assert float(norm) == 5.0
    np.testing.assert_allclose(clipped[0], [0.6, 0.0])
    assert clipped[1] is None
    np.testing.assert_allclose(clipped[2], [[0.8]])


@pytest.mark.parametrize("clip_norm", [0.0, 5.0, 7.0])
def test_small_gradients_and_no_clipping_change_nothing(clip_norm):
    clipped, norm = clip_by_global_norm([tf.constant([3.0]), tf.constant([4.0])], clip_norm)
    assert float(norm) == 5.0
    assert [float(grad[0]) for grad in clipped] == [3.0, 4.0]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_norm_shows_gradients_that_are_not_finite(bad, clip_norm):
    _, norm = clip_by_global_norm([tf.constant([1.0]), tf.constant([bad])], clip_norm)
    assert not np.isfinite(norm)


def test_zero_gradients_stay_zero():
    clipped, norm = clip_by_global_norm([tf.zeros([3])], 1.0)
    assert float(norm) == 0.0
    np.testing.assert_array_equal(clipped[0], np.zeros(3))


def test_loss_scale_grows_and_halves_inside_a_graph(strategy):
    with strategy.scope():
        loss_scale = DynamicLossScale(initial_scale=8.0, growth_interval=3, min_scale=2.0, max_scale=16.0)
    update = tf.function(loss_scale.update)
    seen = []
    for finite in [1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]:
        update(tf.constant(bool(finite)))
        seen.append(float(loss_scale.scale.numpy()))
    # Doubled after three in a row, counted anew after every change; within its bounds.
    assert seen == [8, 8, 4, 4, 4, 8, 8, 8, 16, 16, 16, 16, 8, 4, 2, 2]
    for variable in (loss_scale.scale, loss_scale.num_good_updates):
        copies = [v.numpy() for v in strategy.experimental_local_results(variable)]
        assert len(set(copies)) == 1


def test_loss_scale_in_a_step_that_skips_overflows(strategy):
    with strategy.scope():
        loss_scale = DynamicLossScale(initial_scale=2.0**15, growth_interval=2)
        weight = tf.Variable(1.0, name="kernel")
        optimizer = build_optimizer(name="adam", learning_rate=0.5)
        optimizer.build([weight])

    @tf.function
    def step(factor):
        def replica_gradients():
            with tf.GradientTape() as tape:
                loss = loss_scale.scale_loss(tf.cast(weight, tf.float16) * tf.cast(factor, tf.float16))
            grads = loss_scale.unscale([tape.gradient(loss, weight), None])
            assert grads[1] is None
            context = tf.distribute.get_replica_context()
            grads = context.all_reduce(tf.distribute.ReduceOp.SUM, grads[:1])
            return clip_by_global_norm(grads, 0.0)

        grads, norm = strategy.run(replica_gradients)
        norm = strategy.experimental_local_results(norm)[0]

        def apply():
            strategy.run(
                lambda g: optimizer.apply_gradients([(g[0], weight)], skip_gradients_aggregation=True),
                args=(grads,),
            )
            return True

        finite = tf.math.is_finite(norm)
        tf.cond(finite, apply, lambda: False)
        loss_scale.update(finite)
        return norm

    # 4 * 2**15 overflows float16, 4 * 2**13 does not.
    norms = [float(step(tf.constant(4.0))) for _ in range(3)]
    assert not np.isfinite(norms[:2]).any()
    assert norms[2] == 4.0 * strategy.num_replicas_in_sync
    assert float(loss_scale.scale.numpy()) == 2.0**13
    assert int(optimizer.iterations.numpy()) == 1
    np.testing.assert_allclose(weight.numpy(), 0.5, rtol=1e-5)


def test_loss_scale_is_checkpointed(tmp_path):
    loss_scale = DynamicLossScale(initial_scale=4.0, growth_interval=5)
    for finite in (False, True, True):
        loss_scale.update(finite)
    path = tf.train.Checkpoint(loss_scale=loss_scale).save(str(tmp_path / "ckpt"))
    again = DynamicLossScale(initial_scale=4.0, growth_interval=5)
    tf.train.Checkpoint(loss_scale=again).restore(path).assert_consumed()
    assert (float(again.scale.numpy()), int(again.num_good_updates.numpy())) == (2.0, 2)


def test_scaled_loss_is_float32_even_from_float16():
    loss_scale = DynamicLossScale(initial_scale=2.0**15)
    scaled = loss_scale.scale_loss(tf.constant(8.0, tf.float16))
    assert scaled.dtype == tf.float32
    assert float(scaled) == 2.0**18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_scale": 0.5}, "loss scale 0.5 must be positive, from 1.0 to"),
        ({"initial_scale": 2.0**30}, "loss scale 1073741824.0 must be positive"),
        ({"growth_interval": 0}, "growth_interval must be at least 1, got 0"),
    ],
)
def test_loss_scale_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        DynamicLossScale(**arguments)
