"""Steps that XLA compiles whole train the same weights and hear the same texts, however an update is split."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.optimizer import DynamicLossScale, build_optimizer
from tests.engine.training.test_trainer import NUM_ROWS, assert_same, make_trainer, plain, train  # noqa: F401
from tests.helpers import equivalence
from tests.helpers.device_graph import operations
from tests.helpers.engine_toys import toy_batch, toy_dataset_fn

# One layer of a real network, with all that is random in it.
MODEL = {**equivalence.MODEL, "num_layers": 1, "fused_ops": "off"}


@pytest.fixture(scope="module")
def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def two_updates(strategy, **options):
    trainer = equivalence.make_trainer(strategy, model=MODEL, is_bucketed=False, **options)
    metrics = trainer.train(tf.constant(2))
    return trainer, [variable.numpy() for variable in trainer.model.trainable_variables], metrics


@pytest.fixture(scope="module")
def network(one_device):
    return two_updates(one_device)


@pytest.mark.slow  # on one device, with two microbatches, tests/test_equivalence.py has it too
@pytest.mark.parametrize("microbatch_rows", [0, 8])
def test_a_network_compiled_whole_has_the_same_weights_statistics_and_texts(network, one_device, microbatch_rows):
    trainer, weights, metrics = two_updates(
        one_device, jit_compile=True, microbatch_rows=microbatch_rows, ema_decay=0.5
    )
    assert equivalence.largest_difference(weights, network[1]) < 1e-5
    for name in ("loss", "gradient_norm", "mean_confidence", "audio_secs", "num_rows", "num_skipped_updates"):
        assert metrics[name] == pytest.approx(network[2][name], rel=1e-5), name
    assert trainer.data_digest.numpy() == network[0].data_digest.numpy()


def test_a_network_compiled_for_each_replica_has_the_same_weights(network, two_replicas):
    _, weights, metrics = two_updates(two_replicas, jit_compile=True, microbatch_rows=4)
    assert equivalence.largest_difference(weights, network[1]) < 1e-5
    assert metrics["loss"] == pytest.approx(network[2]["loss"], rel=1e-5)


def test_a_compiled_evaluation_hears_the_same_on_one_and_on_two_replicas(one_device, two_replicas):
    def evaluate(strategy, is_compiled):
        model = equivalence.make_trainer(strategy, model=MODEL).model
        model.head.bias.assign(tf.one_hot(0, 32) * -9.0)  # random weights say only blanks: without them there is a text
        evaluator = equivalence.make_evaluator(
            strategy, model, batch_size=8, bucket_boundaries=equivalence.BOUNDARIES[-1:], jit_compile=is_compiled
        )
        return equivalence.evaluate(evaluator)

    texts, loss = evaluate(one_device, False)
    for strategy in (one_device, two_replicas):
        assert evaluate(strategy, True) == (texts, pytest.approx(loss, rel=1e-5))


@pytest.mark.parametrize(
    "options",
    [
        {
            "microbatch_rows": 2, "clip_norm": 0.1, "ema_decay": 0.9, "max_consecutive_skips": 3,
            "freeze_encoder_updates": 2, "loss_divisor": "label_tokens",
        },
        {"loss_scale": lambda: DynamicLossScale(initial_scale=1024.0)},
    ],
)  # fmt: skip
def test_all_that_a_step_can_do_is_the_same_compiled(options, one_device, two_replicas):
    wanted, metrics = train(make_trainer(**options))
    for strategy in (one_device, two_replicas):
        trainer = make_trainer(strategy, jit_compile=True, **options)
        found, compiled = train(trainer)
        assert_same(found, wanted)
        assert {**compiled, "audio_secs_per_sec": 0, "input_stall_ratio": 0} == pytest.approx(
            {**metrics, "audio_secs_per_sec": 0, "input_stall_ratio": 0}, rel=1e-4, nan_ok=True
        )
        trainer.settle()
        assert int(trainer.global_step.numpy()) == 5 and trainer.settled_version() is not None


@pytest.mark.parametrize("poisoned", [0, 1, 4])
@pytest.mark.parametrize("frozen_updates", [0, 3])
def test_a_compiled_update_without_a_finite_loss_changes_nothing_and_is_counted(poisoned, frozen_updates):
    """The first update too, in which no moment exists yet, and the last, whose rate is the one that is reported."""

    def poison(update, num_rows):
        batch = toy_batch(update, num_rows)
        return {**batch, "waveform": batch["waveform"] * np.float32(np.nan)} if update == poisoned else batch

    def run(jit_compile):
        schedule = tf_keras.optimizers.schedules.PolynomialDecay(0.1, 10, 0.01)
        trainer = make_trainer(
            dataset_fn=toy_dataset_fn(NUM_ROWS, make=poison),
            optimizer=lambda: build_optimizer(name="adamw", learning_rate=schedule, weight_decay=0.1),
            freeze_encoder_updates=frozen_updates,
            ema_decay=0.9,
            jit_compile=jit_compile,
        )
        weights, metrics = train(trainer)
        optimizer = trainer.optimizer
        assert optimizer.iterations.numpy() == 4
        state = [*weights, *optimizer.variables, optimizer.steps, *trainer.ema.shadows, optimizer.learning_rate]
        return [np.asarray(value) for value in state], metrics

    found, wanted = run(True), run(False)
    assert found[1]["num_skipped_updates"] == wanted[1]["num_skipped_updates"] == 1
    assert_same(found[0], wanted[0])
    assert all(np.isfinite(value).all() for value in found[0])


def test_a_skipped_update_keeps_every_bit():
    """`assert_same` allows for rounding; a skipped update must not even round."""
    trainer = make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS), ema_decay=0.9, jit_compile=True)
    train(trainer, 2)
    pairs = [(tf.fill(v.shape, np.nan), v) for v in trainer.model.trainable_variables]
    state = [*trainer.model.trainable_variables, *trainer.optimizer.variables, trainer.optimizer.steps]
    before = [variable.numpy().tobytes() for variable in state]

    @tf.function(jit_compile=True)
    def skip(is_applied):
        trainer.optimizer.apply_gradients_if(is_applied, pairs)
        trainer.ema.update(trainer.optimizer.iterations, is_applied=is_applied)

    shadows = [shadow.numpy().tobytes() for shadow in trainer.ema.shadows]
    skip(tf.constant(False))
    assert [variable.numpy().tobytes() for variable in state] == before
    assert [shadow.numpy().tobytes() for shadow in trainer.ema.shadows] == shadows


def test_a_compiled_update_has_no_branch_for_whose_sake_xla_would_copy_every_variable():
    specs = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in toy_batch(0, NUM_ROWS).items()}

    def branches(jit_compile):
        update = make_trainer(jit_compile=jit_compile).update
        ops = operations(tf.function(update, autograph=False).get_concrete_function(specs))
        return {op.type for _, op in ops} & {"If", "StatelessIf"}

    assert branches(False) and not branches(True)


def test_what_is_compiled_is_one_program(one_device, two_replicas):
    """The whole update on one device; the passes of each replica on two, with the collectives outside."""
    specs = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in toy_batch(0, NUM_ROWS).items()}

    def compiled_and_outside(strategy):
        trainer = make_trainer(strategy, jit_compile=True)
        ops = [op for _, op in operations(tf.function(trainer.update, autograph=False).get_concrete_function(specs))]
        programs = [op for op in ops if "_XlaMustCompile" in op.node_def.attr and op.get_attr("_XlaMustCompile")]
        top = tf.function(trainer.update, autograph=False).get_concrete_function(specs).graph.get_operations()
        return programs, {op.type for op in top}

    programs, outside = compiled_and_outside(one_device)
    assert programs and not outside & {"MatMul", "ResourceApplyAdam", "AssignAddVariableOp"}
    programs, outside = compiled_and_outside(two_replicas)
    assert len(programs) >= 2
    assert "CollectiveReduceV2" in outside and "MatMul" not in outside
