"""What can be known about a TPU without one: nothing in the steps that it cannot run, and what XLA makes of them.

That the steps compiled whole train the same weights, on small shapes: tests/test_equivalence.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from configs import base
from engine.config import builders, validation
from engine.distributed import strategy as runtime
from models.build import build_model
from models.ctc import greedy
from models.ctc import loss as ctc
from tests.engine.training.test_trainer import make_trainer as make_toy_trainer
from tests.helpers import equivalence
from tests.helpers.device_graph import Fault, find_faults, op_types
from tests.helpers.engine_toys import toy_batch, toy_loss
from tests.helpers.experiment_toys import make_parts

ONE_ROW_SAMPLES = 246_000  # the length that the published TensorFlow model is exported for


def sparse_ctc(x):
    labels = tf.sparse.from_dense(tf.constant([[1], [1]]))
    return tf.nn.ctc_loss(labels, tf.reshape(x, [3, 2, 4]), None, tf.constant([3, 3]), blank_index=0)


@pytest.mark.parametrize(
    ("kind", "op", "planted"),
    [
        ("host callback", "EagerPyFunc", lambda x: tf.py_function(lambda y: y, [x], tf.float32)),
        ("host callback", "PyFunc", lambda x: tf.numpy_function(lambda y: y, [x], tf.float32)),
        ("host callback", "PrintV2", lambda x: after(tf.print(x), x)),
        ("host callback", "Timestamp", lambda x: x * tf.cast(tf.timestamp(), tf.float32)),
        ("host callback", "Assert", lambda x: after(tf.debugging.assert_positive(x), x)),
        ("string", "AsString", lambda x: tf.strings.length(tf.strings.as_string(x))),
        ("unknown shape", "Where", lambda x: tf.where(x > 0)),
        ("unknown shape", "GatherV2", lambda x: tf.boolean_mask(x, x > 0)),
        ("sparse tensor", "SparseTensorDenseMatMul", lambda x: tf.sparse.sparse_dense_matmul(
            tf.SparseTensor([[0, 1]], [1.0], [2, 24]), x[:, tf.newaxis])),
        ("CPU kernel", "CTCLoss", sparse_ctc),
        ("float16", "Mul", lambda x: tf.cast(x, tf.float16) * 2),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found_in_a_branch_of_a_loop_of_a_compiled_function(kind, op, planted):
    found = [fault for fault in find_faults(nested(planted)) if (fault.kind, fault.op) == (kind, op)]
    assert found and all(fault.name.startswith("while/") and "/cond/" in fault.name for fault in found)
    assert find_faults(nested(tf.abs)) == []


def nested(branch):
    @tf.function(jit_compile=True, autograph=False)
    def inner(x, is_on):
        return tf.cond(is_on, lambda: tf.reduce_sum(tf.cast(branch(x), tf.float32)), lambda: 0.0)

    def outer(x, is_on):
        return tf.while_loop(lambda i, total: i < 3, lambda i, total: (i + 1, total + inner(x, is_on)), (0, 0.0))

    return tf.function(outer, autograph=False).get_concrete_function(tf.TensorSpec([24]), tf.TensorSpec([], tf.bool))


def after(op, x):
    with tf.control_dependencies([op]):
        return tf.identity(x)


def test_a_callback_in_the_loss_is_found_in_the_training_step():
    def loss(logits, *more):
        return toy_loss(tf.numpy_function(np.copy, [logits], tf.float32, name="spy") * 0.0 + logits, *more)

    specs = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in toy_batch(0, 8).items()}
    for planted in (True, False):
        trainer = make_toy_trainer(microbatch_rows=3, **({"loss_fn": loss} if planted else {}))
        update = tf.function(trainer.update, autograph=False).get_concrete_function(specs)
        found = find_faults(update)
        assert bool(found) == planted
        assert not planted or Fault("host callback", "PyFunc", "while/while/spy") in found


def test_a_batch_without_a_static_number_of_rows_is_found():
    specs = {key: tf.TensorSpec([None, *x.shape[1:]], x.dtype) for key, x in toy_batch(0, 8).items()}
    update = tf.function(make_toy_trainer().update, autograph=False).get_concrete_function(specs)
    assert Fault("unknown shape", "Placeholder", "batch_3") in find_faults(update)


def test_the_loss_and_its_gradient_hold_nothing_that_a_tpu_cannot_run(monkeypatch):
    # A trace of an earlier test, for any number of rows, would be taken for this one.
    monkeypatch.setattr(ctc, "sum_paths", tf.function(ctc.sum_paths.python_function, autograph=False))

    def step(logits, *more):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = ctc.ctc_loss(logits, *more)
        return losses, tape.gradient(losses, logits)

    lengths = tf.TensorSpec([2], tf.int32)
    specs = tf.TensorSpec([2, 5, 4]), lengths, tf.TensorSpec([2, 2], tf.int32), lengths
    step = tf.function(step, autograph=False).get_concrete_function(*specs)
    assert find_faults(step) == [] and "StatelessWhile" in op_types(step)


@pytest.mark.slow
def test_the_steps_of_the_base_config_hold_nothing_that_a_tpu_cannot_run(monkeypatch):
    """Full size, its microbatches, precision, masks, dropout, with a frozen start, rows of its longest duration."""
    devices = tf.config.list_logical_devices
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [kind] if kind == "TPU" else devices(kind))
    monkeypatch.setattr(runtime, "is_tpu", lambda strategy: True)
    config = base.get_config()
    config.data.num_buckets = 1  # all that has to be changed
    config.model.preset = "base"  # what its weights, which are not here, would say
    config.model.freeze_encoder_updates, config.train.ema_decay = 10, 0.999
    validation.check_tpu(config)
    parts = make_parts(
        build_model=build_model, loss_fn=ctc.ctc_loss, feasible_fn=ctc.feasible, decoder=greedy.greedy_decode
    )
    strategy, data = tf.distribute.OneDeviceStrategy("/cpu:0"), equivalence.NoiseEvalData(8)
    with strategy.scope():
        model = builders.build_model(config, parts, num_tokens=32)
        trainer = builders.build_trainer(
            config, parts, strategy=strategy, model=model, train_data=data, between_updates=lambda: None,
            global_step=tf.Variable(0, dtype=tf.int64),
        )  # fmt: skip
        group = builders.build_evaluators(
            config, parts, strategy=strategy, model=model, tokenizer=None, eval_data={"noise": data}
        )
    specs = batch_specs(config.train.global_batch_size, int(config.data.max_duration_secs * 16_000), num_labels=400)
    update = tf.function(trainer.update, autograph=False).get_concrete_function(specs)
    assert find_faults(update) == []
    # It has seen all of it: accumulation, layer drop and the frozen start, the network, the optimizer.
    assert op_types(update) >= {"While", "If", "Conv2D", "BatchMatMulV2", "ResourceApplyAdam"}
    step = tf.function(group._evaluators["noise"]._transcribe, autograph=False).get_concrete_function(specs)
    assert find_faults(step) == []


def batch_specs(num_rows, num_samples, num_labels):
    return {
        "waveform": tf.TensorSpec([num_rows, num_samples]),
        "waveform_lengths": tf.TensorSpec([num_rows], tf.int32),
        "labels": tf.TensorSpec([num_rows, num_labels], tf.int32),
        "label_lengths": tf.TensorSpec([num_rows], tf.int32),
        "weight": tf.TensorSpec([num_rows]),
        "utterance_index": tf.TensorSpec([num_rows], tf.int64),
    }


@pytest.mark.slow
def test_rows_of_a_real_length_compiled_whole_give_the_same_update_and_tokens():
    """The base model's convolutions, norms and positional kernel at a twelfth of its width; on the CPU its regions."""
    rng = np.random.default_rng(0)
    lengths, label_lengths = [ONE_ROW_SAMPLES, 150_000], [200, 120]
    batch = {
        "waveform": tf.constant(rng.normal(size=(2, ONE_ROW_SAMPLES)).astype(np.float32)),
        "waveform_lengths": tf.constant(lengths),
        "labels": tf.constant(rng.integers(1, 32, (2, 200)).astype(np.int32)),
        "label_lengths": tf.constant(label_lengths),
        "weight": tf.ones([2]),
        "utterance_index": tf.constant([5, 9], tf.int64),
    }
    model = {
        **equivalence.MODEL, "preset": "base", "conv_dim": (32,) * 7, "hidden_size": 64, "num_heads": 4,
        "intermediate_size": 256, "pos_conv_kernel": 128, "pos_conv_groups": 16,
    }  # fmt: skip
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    cases = {"ordinary": (2, "on"), "compiled": (1, "off")}
    weights, statistics, outputs = {}, {}, {}
    for name, (microbatch_rows, fused_ops) in cases.items():
        trainer = equivalence.make_trainer(
            strategy, microbatch_rows=microbatch_rows, model={**model, "fused_ops": fused_ops}
        )
        compiled = {"jit_compile": name == "compiled", "autograph": False}
        step = equivalence.make_evaluator(strategy, trainer.model, batch_size=2)._transcribe
        outputs[name] = {key: x.numpy() for key, x in tf.function(step, **compiled)(batch).items()}
        tf.function(trainer.update, **compiled)(batch)
        weights[name] = [v.numpy() for v in trainer.model.trainable_variables]
        statistics[name] = trainer.statistics.numpy()
    assert statistics["compiled"][0] > 1000.0  # nats of two rows
    np.testing.assert_allclose(statistics["compiled"], statistics["ordinary"], rtol=1e-5)
    assert equivalence.largest_difference(weights["compiled"], weights["ordinary"]) < 1e-5
    assert outputs["compiled"]["num_tokens"].min() > 100
    for key, found in outputs["compiled"].items():
        np.testing.assert_allclose(found, outputs["ordinary"][key], rtol=1e-5)
