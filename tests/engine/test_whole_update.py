"""What makes the rows of one update one update: its divisor, its one all-reduce, and that none is made of no rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.distribute import collective_util, cross_device_ops

from tests.engine.training.test_trainer import assert_same, make_trainer, train
from tests.helpers.device_graph import operations
from tests.helpers.engine_toys import toy_batch, toy_dataset_fn, toy_loss

NUM_ROWS = 8


def uneven_batch(update, num_rows):
    """Labels of 1, 2, 3, 1, 2 tokens; then a row too short for its three, an unreadable one and a padding row."""
    batch = toy_batch(update, num_rows)
    batch["label_lengths"][:] = [1, 2, 3, 1, 2, 3, 3, 0]
    batch["waveform_lengths"][5] = 8  # two frames
    batch["weight"][6:] = 0.0
    batch["utterance_index"][7] = -1
    return batch


def test_label_tokens_as_divisor_are_counted_over_all_replicas_and_microbatches(two_replicas):
    """Microbatches of one row, three of the eight without a token that counts, and of three."""
    data = toy_dataset_fn(NUM_ROWS, make=uneven_batch)
    model, batch = make_trainer().model, {key: x[:5] for key, x in uneven_batch(0, NUM_ROWS).items()}
    random = model.make_random(seed=0, update=0, row_ids=batch["utterance_index"])
    with tf.GradientTape() as tape:
        logits = model(tf.constant(batch["waveform"]), batch["waveform_lengths"], training=True, random=random)
        lengths = model.output_lengths(batch["waveform_lengths"])
        losses = toy_loss(logits, lengths, batch["labels"], batch["label_lengths"])
        loss = tf.reduce_sum(losses) / 9.0
    gradients = tape.gradient(loss, model.trainable_variables)
    wanted = [v.numpy() - g.numpy() for v, g in zip(model.trainable_variables, gradients, strict=True)]
    for strategy, microbatch_rows in ((None, 1), (two_replicas, 1), (None, 3)):
        trainer = make_trainer(
            strategy, dataset_fn=data, microbatch_rows=microbatch_rows, loss_divisor="label_tokens",
            optimizer=lambda: tf_keras.optimizers.SGD(1.0),
        )  # fmt: skip
        weights, figures = train(trainer, 1)
        assert_same(weights, wanted)
        assert figures["loss"] == pytest.approx(float(tf.reduce_mean(losses)), rel=1e-5)  # by utterance, always


def test_an_update_without_any_row_that_has_a_loss_changes_no_weight_and_is_counted(two_replicas):
    """Its gradient is zero and finite; weight decay and the moments of the update before would move the weights."""

    def at_first_full(update, num_rows):
        batch = toy_batch(update, num_rows)
        if update in (1, 2):
            batch["waveform_lengths"][:4] = 8  # infeasible
            batch["weight"][4:] = 0.0  # unreadable
        return batch

    for strategy, microbatch_rows in ((None, 0), (two_replicas, 2)):
        trainer = make_trainer(
            strategy, dataset_fn=toy_dataset_fn(NUM_ROWS, make=at_first_full), microbatch_rows=microbatch_rows,
            max_consecutive_skips=1, ema_decay=0.5,
        )  # fmt: skip
        before, _ = train(trainer, 1)
        averages = [shadow.numpy() for shadow in trainer.ema.shadows]
        weights, figures = train(trainer, 2)
        assert_same([*weights, *(shadow.numpy() for shadow in trainer.ema.shadows)], [*before, *averages], rtol=0)
        assert (figures["num_skipped_updates"], figures["num_infeasible"], figures["num_bad"]) == (2, 8, 8)
        assert np.isnan(figures["loss"]) and figures["gradient_norm"] == 0.0
        assert list(trainer.skip_counter.take()) == []  # no fault of the loss: the limit of bad rows is for that
        after, figures = train(trainer, 1)
        assert np.isfinite(figures["loss"]) and figures["num_skipped_updates"] == 0
        assert all((a != b).any() for a, b in zip(after, before, strict=True))
        assert (int(trainer.global_step.numpy()), int(trainer.optimizer.iterations.numpy())) == (4, 2)


def test_an_update_is_one_all_reduce_of_the_gradients_and_two_of_a_few_numbers():
    """Of four microbatches; docs/scaling.md counts the bytes."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    # CPUs of one process would add up without collectives; these are what GPUs and several processes run.
    collectives = cross_device_ops.CollectiveAllReduce(
        devices=devices, group_size=2, options=collective_util.Options(), canonicalize_devices=True
    )
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=collectives)
    specs = {key: tf.TensorSpec([4, *x.shape[1:]], x.dtype) for key, x in toy_batch(0, 8).items()}
    trainer = make_trainer(strategy, microbatch_rows=1, clip_norm=1.0, ema_decay=0.5)

    def update(*rows):
        trainer.update(strategy.experimental_distribute_values_from_function(
            lambda context: rows[context.replica_id_in_sync_group]
        ))  # fmt: skip

    traced = tf.function(update, autograph=False).get_concrete_function(specs, specs)
    found = [(place, op) for place, op in operations(traced) if op.type.startswith("Collective")]
    num_weights = sum(variable.shape.num_elements() for variable in trainer.model.trainable_variables)
    for device in devices:
        sizes = [op.inputs[0].shape.num_elements() for _, op in found if op.device.endswith(device)]
        assert sizes == [1, num_weights, 14]  # divisor, gradients, statistics with the data digest
    assert all(place == "" and op.inputs[0].dtype == tf.float32 for place, op in found)  # in no microbatch's loop
