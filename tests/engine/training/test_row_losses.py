"""Losses beside the CTC loss: the divergence of two views, its warm-up, and what rows without a loss do to it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.optimizer import DynamicLossScale
from engine.training.options import TrainerOptions
from engine.training.row_losses import TrainingLoss, consistency_loss
from tests.engine.training.test_trainer import assert_same, make_trainer, train
from tests.helpers.engine_toys import ToyModel, toy_batch, toy_dataset_fn, toy_loss

NUM_ROWS = 8
TWO_VIEWS = {"cr_ctc_scale": 0.2}


def softmax(x):
    exps = np.exp(x - x.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def test_divergence_and_gradient_equal_those_of_the_definition_in_float64():
    rng = np.random.default_rng(0)
    first, second = rng.normal(scale=4.0, size=(2, 3, 7, 5)).astype(np.float32)
    num_frames = [7, 4, 0]
    views = [tf.constant(first), tf.constant(second)]
    with tf.GradientTape() as tape:
        tape.watch(views)
        losses = consistency_loss(*views, tf.constant(num_frames), tf.ones([3]))
    gradients = tape.gradient(losses, views)
    for row, length in enumerate(num_frames):
        p, q = (softmax(x[row, :length].astype(np.float64)) for x in (first, second))
        divergences = (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
        assert losses[row].numpy() == pytest.approx(divergences / 2, rel=1e-5, abs=1e-7)
        # The target is fixed, so the gradient of KL(q || softmax(x)) is softmax(x) - q.
        for gradient, wanted in zip(gradients, (p - q, q - p), strict=True):
            np.testing.assert_allclose(gradient[row, :length], wanted / 2, atol=1e-6)
            assert not gradient[row, length:].numpy().any()


def test_no_frame_of_a_row_without_a_loss_and_none_past_its_end_spoils_anything():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    first[1], second[1, 2] = np.nan, np.inf  # a row without a loss
    first[0, 3] = -np.inf  # past its end
    views = [tf.constant(first), tf.constant(second)]
    with tf.GradientTape() as tape:
        tape.watch(views)
        losses = consistency_loss(*views, tf.constant([3, 4, 4]), tf.constant([1.0, 0.0, 1.0]))
    assert losses[1].numpy() == 0.0 and (losses.numpy()[[0, 2]] > 0).all()
    for gradient in tape.gradient(losses, views):
        assert np.isfinite(gradient).all() and not gradient[1].numpy().any() and not gradient[0, 3].numpy().any()


def test_padding_of_frames_changes_no_loss():
    rng = np.random.default_rng(0)
    views = rng.normal(size=(2, 2, 6, 5)).astype(np.float32)
    wide = np.pad(views, [(0, 0), (0, 0), (0, 9), (0, 0)], constant_values=3.0)
    narrow, padded = (consistency_loss(*x, tf.constant([6, 2]), tf.ones([2])).numpy() for x in (views, wide))
    np.testing.assert_allclose(padded, narrow, rtol=1e-6)


def test_its_weight_rises_from_zero_and_stays():
    step = tf.Variable(0, dtype=tf.int64)
    options = TrainerOptions(cr_ctc_scale=0.5, cr_ctc_warmup_updates=4)
    loss = TrainingLoss(model=ToyModel(), loss_fn=toy_loss, options=options, global_step=step)
    batch = {key: tf.constant(x) for key, x in toy_batch(0, NUM_ROWS).items()}
    for update, weight in ((0, 0.0), (1, 0.125), (3, 0.375), (4, 0.5), (1000, 0.5)):
        step.assign(update)
        rows = loss.row_losses(batch, batch["weight"])
        (consistency,) = rows.auxiliary
        assert (consistency.numpy() > 0).all()
        np.testing.assert_allclose(rows.total, rows.ctc + weight * consistency, rtol=1e-6)


def test_an_update_equals_the_plain_gradient_of_the_mean_over_rows():
    trainer = make_trainer(optimizer=lambda: tf_keras.optimizers.SGD(1.0), **TWO_VIEWS)
    model, batch = trainer.model, toy_batch(0, NUM_ROWS)
    random = model.make_random(seed=0, update=0, row_ids=batch["utterance_index"], num_views=2)
    lengths = model.output_lengths(batch["waveform_lengths"])
    with tf.GradientTape() as tape:
        views = [
            model(tf.constant(batch["waveform"]), batch["waveform_lengths"], training=True, random=numbers)
            for numbers in tf.split(random, 2)
        ]
        ctc = sum(toy_loss(view, lengths, batch["labels"], batch["label_lengths"]) for view in views) / 2
        consistency = []
        for row in range(NUM_ROWS):
            p, q = (tf.nn.softmax(tf.cast(view[row, : lengths[row]], tf.float64)) for view in views)
            divergence = tf.stop_gradient(p) * tf.math.log(tf.stop_gradient(p) / q)
            divergence += tf.stop_gradient(q) * tf.math.log(tf.stop_gradient(q) / p)
            consistency.append(tf.cast(tf.reduce_sum(divergence) / 2, tf.float32))
        loss = tf.reduce_mean(ctc + 0.2 * tf.stack(consistency))
    wanted = [v.numpy() - g.numpy() for v, g in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    )]  # fmt: skip
    weights, figures = train(trainer, 1)
    assert_same(weights, wanted)
    assert figures["loss"] == pytest.approx(float(tf.reduce_mean(ctc)), rel=1e-5)
    assert figures["consistency_loss"] == pytest.approx(float(tf.reduce_mean(consistency)), rel=1e-5)


def test_without_a_scale_no_other_field_of_it_changes_a_bit():
    plain, figures = train(make_trainer())
    weights, others = train(make_trainer(cr_ctc_warmup_updates=3, cr_ctc_mask_factor=9.0, intermediate_ctc_weight=0.9))
    assert_same(weights, plain, rtol=0)
    assert others["loss"] == figures["loss"]
    assert not {"consistency_loss", "intermediate_ctc_loss"} & (figures.keys() | others.keys())
    assert make_trainer().auxiliary_losses is None  # nothing that older checkpoints lack


def test_rows_without_a_loss_count_for_nothing(two_replicas):
    def spoiled(update, rows):
        batch = toy_batch(update, rows)
        batch["waveform_lengths"][5] = 8  # two frames for three labels
        batch["weight"][6:] = 0.0  # unreadable, and padding
        batch["utterance_index"][7] = -1
        return batch

    def without(update, rows):
        return {key: x[:5] for key, x in toy_batch(update, 8).items()}

    wanted, figures = train(make_trainer(dataset_fn=toy_dataset_fn(5, make=without), **TWO_VIEWS))
    for strategy, accum_steps in ((None, 1), (two_replicas, 2)):
        trainer = make_trainer(
            strategy, dataset_fn=toy_dataset_fn(NUM_ROWS, make=spoiled), accum_steps=accum_steps, **TWO_VIEWS
        )
        weights, others = train(trainer)
        assert_same(weights, wanted)
        for name in ("loss", "consistency_loss", "blank_ratio", "labels_per_frame"):
            assert others[name] == pytest.approx(figures[name], rel=1e-5), name


def test_a_divergence_that_is_not_finite_skips_the_update_and_spoils_no_figure():
    def poisoned(update, rows):
        batch = toy_batch(update, rows)
        batch["waveform"][3, 0] = np.nan if update == 1 else 0.0
        return batch

    trainer = make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned), **TWO_VIEWS)
    before, first = train(trainer, 1)
    weights, figures = train(trainer, 1)
    assert figures["num_skipped_updates"] == 1
    assert_same(weights, before, rtol=0)
    again = make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned), **TWO_VIEWS)
    _, both = train(again, 2)
    assert both["consistency_loss"] == pytest.approx(first["consistency_loss"], rel=1e-6)
    assert np.isfinite(train(trainer, 1)[1]["consistency_loss"])


def test_a_loss_scale_leaves_the_weights_as_they_are():
    wanted, _ = train(make_trainer(**TWO_VIEWS))
    scaled = make_trainer(loss_scale=lambda: DynamicLossScale(initial_scale=1024.0), **TWO_VIEWS)
    assert_same(train(scaled)[0], wanted, rtol=1e-4)


def test_a_frozen_encoder_trains_the_head_alone_on_both_losses():
    trainer = make_trainer(freeze_encoder_updates=2, **TWO_VIEWS)
    before = [v.numpy() for v in trainer.model.trainable_variables]
    after, figures = train(trainer, 2)
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True, True, False, False]
    assert figures["consistency_loss"] > 0
    assert all((a != b).any() for a, b in zip(train(trainer, 1)[0], after, strict=True))
