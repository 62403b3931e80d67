"""Steps that XLA compiles whole train the same weights and hear the same texts, however an update is split."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.training.optimizer import DynamicLossScale
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


def test_a_compiled_update_without_a_finite_loss_is_skipped_and_counted():
    def poisoned(update, num_rows):
        batch = toy_batch(update, num_rows)
        return {**batch, "waveform": batch["waveform"] * np.float32(np.nan)} if update == 1 else batch

    found = [train(make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned), jit_compile=jit)) for jit in (0, 1)]
    assert found[1][1]["num_skipped_updates"] == found[0][1]["num_skipped_updates"] == 1
    assert_same(found[1][0], found[0][0])
    assert np.isfinite(found[1][0][0]).all()


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
