"""Averaged weights against NumPy; swapped in and out, saved and picked bit by bit."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpointing.best import BestCheckpoint
from engine.checkpointing.restore import restore_weights
from engine.training.ema import EmaWeights
from tests.engine.training.test_trainer import NUM_ROWS, make_trainer, train
from tests.helpers.engine_toys import ToyModel, toy_batch, toy_dataset_fn

DECAY = 0.5


def recursion(history):
    """`history`: [updates + 1][variables] weights, the start first."""
    shadow = [value.astype(np.float64) for value in history[0]]
    for n, weights in enumerate(history[1:], start=1):
        decay = min(DECAY, (1 + n) / (10 + n))
        shadow = [decay * s + (1 - decay) * w for s, w in zip(shadow, weights, strict=True)]
    return shadow


def values(variables):
    return [variable.numpy() for variable in variables]


def assert_equal(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_average_follows_the_recursion_and_a_skipped_update_changes_nothing(two_replicas, replicas):
    def poisoned(update, rows):
        batch = toy_batch(update, rows)
        if update == 2:
            batch["waveform"][3, 0] = np.nan
        return batch

    strategy = two_replicas if replicas == 2 else None
    dataset_fn = toy_dataset_fn(NUM_ROWS, make=poisoned)
    trainer = make_trainer(
        strategy, ema_decay=DECAY, microbatch_rows=3, dataset_fn=dataset_fn, freeze_encoder_updates=1
    )
    history = [values(trainer.model.trainable_variables)]
    for update in range(11):
        weights, figures = train(trainer, 1)
        assert figures["num_skipped_updates"] == (update == 2)
        if update != 2:
            history.append(weights)
    assert len(history) == 11  # the decay has passed from (1 + n) / (10 + n) to 0.5
    for found, wanted, now in zip(trainer.ema.shadows, recursion(history), history[-1], strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-6, atol=1e-7)
        assert np.abs(found.numpy() - now).max() > 1e-3
    if strategy is not None:
        for shadow in trainer.ema.shadows:
            first, second = strategy.experimental_local_results(shadow)
            np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_averages_leave_the_training_as_it_is():
    with_average, figures = train(make_trainer(ema_decay=DECAY))
    without, wanted = train(make_trainer())
    assert_equal(with_average, without)
    for name in ("loss", "gradient_norm", "blank_ratio", "learning_rate"):
        assert figures[name] == wanted[name]


def test_swapping_brings_every_bit_back_even_after_an_exception(two_replicas):
    trainer = make_trainer(two_replicas, ema_decay=DECAY)
    train(trainer, 3)
    raw, averaged = values(trainer.model.trainable_variables), values(trainer.ema.shadows)
    assert any((a != b).any() for a, b in zip(raw, averaged, strict=True))
    with pytest.raises(KeyError), trainer.ema.swapped():
        assert_equal(values(trainer.model.trainable_variables), averaged)
        raise KeyError
    assert_equal(values(trainer.model.trainable_variables), raw)
    assert_equal(values(trainer.ema.shadows), averaged)


def test_a_reset_begins_at_the_present_weights():
    model = ToyModel()
    ema = EmaWeights(model.trainable_variables, decay=DECAY)
    model.head.kernel.assign_add(tf.ones_like(model.head.kernel))
    ema.reset()
    assert_equal(values(ema.shadows), values(model.trainable_variables))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"train.ema_decay must be from 0 \(off\) to less than 1"):
        EmaWeights(ToyModel().trainable_variables, decay=decay)


@pytest.fixture
def run_folder(tmp_path):
    """A workdir with a checkpoint of both kinds and a best one of the averaged weights; and those weights."""
    raw, averaged = ToyModel(seed=1), ToyModel(seed=2)
    ema = EmaWeights(averaged.trainable_variables, decay=DECAY)
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=raw, ema=ema), os.fspath(tmp_path / "checkpoints"), max_to_keep=1
    ).save(7)
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=averaged),
        directory=tmp_path / "best",
        global_step=tf.Variable(5, dtype=tf.int64),
    ).save_if_better(0.5, metric="dev/wer", weights="ema")
    return tmp_path, raw, averaged


@pytest.mark.parametrize(
    ("path", "weights", "wanted", "found"),
    [
        ("", "", "averaged", "best/ckpt-5"),
        ("", "ema", "averaged", "best/ckpt-5"),
        ("", "raw", "raw", "checkpoints/ckpt-7"),
        ("checkpoints/ckpt-7", "", "raw", "checkpoints/ckpt-7"),
        ("checkpoints/ckpt-7", "raw", "raw", "checkpoints/ckpt-7"),
        ("checkpoints/ckpt-7", "ema", "averaged", "checkpoints/ckpt-7"),
    ],
)
def test_weights_are_picked_bit_by_bit(run_folder, path, weights, wanted, found):
    folder, raw, averaged = run_folder
    model = ToyModel(seed=3)
    assert restore_weights(model, folder / path, weights=weights) == os.fspath(folder / found)
    assert_equal(values(model.trainable_variables), values((raw if wanted == "raw" else averaged).trainable_variables))


def test_weights_that_are_not_there_are_one_line(run_folder, tmp_path):
    folder, raw, _ = run_folder
    with pytest.raises(ValueError, match="this best checkpoint only has the ema weights"):
        restore_weights(ToyModel(), folder / "best/ckpt-5", weights="raw")
    tf.train.Checkpoint(model=raw).write(os.fspath(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"has no averaged weights \(train.ema_decay=0\)"):
        restore_weights(ToyModel(), tmp_path / "other", weights="ema")
    with pytest.raises(ValueError, match="--weights must be raw, ema or empty"):
        restore_weights(ToyModel(), folder, weights="both")
    assert json.loads((folder / "best/best.json").read_text())["weights"] == "ema"


@pytest.mark.parametrize("content", [None, "nonsense", 'model_checkpoint_path: "ckpt-3"\n'])
def test_the_newest_weights_are_found_without_tensorflows_list(run_folder, content):
    folder, raw, _ = run_folder
    (folder / "checkpoints/checkpoint").unlink()
    if content is not None:
        (folder / "checkpoints/checkpoint").write_text(content)
    model = ToyModel(seed=3)
    assert restore_weights(model, folder, weights="raw") == os.fspath(folder / "checkpoints/ckpt-7")
    assert_equal(values(model.trainable_variables), values(raw.trainable_variables))
