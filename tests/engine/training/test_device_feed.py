"""The path of batches onto a GPU, with a second logical CPU in its place: what waits for what; no batch changes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing

from engine.distributed import strategy as runtime
from engine.training.device_feed import DeviceFeed
from tests.engine.training.test_trainer import NUM_ROWS, make_trainer, train
from tests.helpers.engine_toys import toy_batch, toy_dataset_fn, toy_varying_dataset_fn

DEVICE = "/device:CPU:1"


@pytest.fixture
def as_gpu(monkeypatch):
    """Makes trainers of one device, with compiled updates, take the path of a GPU."""
    monkeypatch.setattr(runtime, "is_gpu", lambda strategy: True)
    return lambda **options: make_trainer(tf.distribute.OneDeviceStrategy(DEVICE), jit_compile=True, **options)


def varying():
    """Batches of ever other numbers of rows."""
    return toy_varying_dataset_fn(lambda update: 5 + update % 3)


def state(trainer):
    tensors = [*trainer.model.trainable_variables, *trainer.optimizer.variables, trainer.data_digest]
    return [variable.numpy().tobytes() for variable in tensors]


@pytest.mark.parametrize(
    ("data", "options"),
    [(toy_dataset_fn(NUM_ROWS), {}), (varying(), {"microbatch_rows": 3})],
    ids=["whole", "varying microbatches"],
)
def test_an_update_is_the_same_whichever_way_its_batch_came(as_gpu, data, options):
    fed = as_gpu(dataset_fn=data, **options)
    _, figures = train(fed)
    assert fed._feed is not None and isinstance(fed._train_iter, tf.data.Iterator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "is_gpu", lambda strategy: False)
        other = make_trainer(tf.distribute.OneDeviceStrategy(DEVICE), jit_compile=True, dataset_fn=data, **options)
        _, wanted = train(other)
    clock = {"input_stall_ratio": 0.0, "audio_secs_per_sec": 0.0}
    # XLA joins the unpacking with the update, and may round otherwise.
    assert {**figures, **clock} == pytest.approx({**wanted, **clock}, rel=1e-5)
    assert fed.data_digest.numpy() == other.data_digest.numpy()
    for ours, theirs in zip(saved(fed), saved(other), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)
    fed.release_data()


def test_a_run_that_resumes_gets_the_batches_that_were_ahead(as_gpu):
    straight = as_gpu(dataset_fn=varying())
    train(straight, 5)
    first = as_gpu(dataset_fn=varying())
    train(first, 2)
    second = as_gpu(dataset_fn=varying())
    train(second, 1)  # makes the variables; the values of the first are next
    for ours, theirs in zip(saved(second), saved(first), strict=True):
        ours.assign(theirs)
    second.train_dataset = None  # as in another process: the data are opened at the update it has reached
    train(second, 3)
    assert state(second) == state(straight)
    for trainer in (straight, first, second):
        trainer.release_data()


def saved(trainer):
    optimizer = [*trainer.optimizer.variables, trainer.optimizer.steps]
    return [*trainer.model.variables, *optimizer, trainer.data_digest, trainer.global_step]


def test_the_next_batches_are_on_the_device_before_anybody_asks_for_them(as_gpu):
    made = []

    def make(update, rows):
        made.append(update)
        return toy_batch(update, rows)

    def dataset_fn(context, start_update):
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        return toy_varying_dataset_fn(lambda update: NUM_ROWS, make=make)(context, start_update).with_options(options)

    trainer = as_gpu(dataset_fn=dataset_fn)
    train(trainer, 2)
    deadline = time.monotonic() + 60
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made[:5] == [0, 0, 1, 2, 3]  # the first for the signature
    time.sleep(0.2)
    assert len(made) <= 15  # a few of 50
    trainer.release_data()


@pytest.mark.parametrize("delay_secs", [0.0, 0.1])
def test_only_what_is_not_made_yet_counts_as_waiting(as_gpu, delay_secs):
    def make(update, rows):
        time.sleep(delay_secs)
        return toy_batch(update, rows)

    trainer = as_gpu(dataset_fn=toy_varying_dataset_fn(lambda update: NUM_ROWS, make=make))
    train(trainer, 1)  # tracing
    update = trainer.update
    if not delay_secs:  # as where a GPU is slow: the host waits for it, not for data
        trainer.update = lambda batch: (update(batch), time.sleep(0.05))
    _, figures = train(trainer, 8)
    assert (figures["input_stall_ratio"] > 0.5) == (delay_secs > 0.0), figures["input_stall_ratio"]
    assert len(trainer._feed._made_secs) <= 15  # those ahead
    trainer.release_data()


def test_a_copy_that_waits_for_the_gpu_is_not_waiting_for_data():
    feed = DeviceFeed(DEVICE)
    iterator = iter(feed.open(toy_dataset_fn(NUM_ROWS)(tf.distribute.InputContext(), 0)))
    next(iterator)
    asked_secs = time.monotonic() - 5.0  # it came after five seconds
    made_secs = feed._made_secs[0]
    assert feed.waited_secs(asked_secs) == made_secs - asked_secs
    next(iterator)
    assert feed.waited_secs(time.monotonic()) == 0.0  # made before


def test_batches_pass_through_memory_that_a_gpu_can_read_and_hold_no_integers_of_32_bits():
    host = toy_dataset_fn(NUM_ROWS)(tf.distribute.InputContext(), 0)
    feed = DeviceFeed(DEVICE)
    packed = feed.open(host)
    assert tf.int32 not in {spec.dtype for spec in packed.element_spec.values()}
    iterator = iter(packed)
    for update in range(3):
        batch = feed.unpack(next(iterator))
        for (key, found), wanted in zip(batch.items(), toy_batch(update, NUM_ROWS).values(), strict=True):
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), key
            np.testing.assert_array_equal(found, wanted)


def test_map_and_batch_become_the_operation_that_allocates_for_a_gpu():
    """Only the fused operation does; TensorFlow leaves out what it cannot fuse without a word."""
    host = toy_dataset_fn(NUM_ROWS)(tf.distribute.InputContext(), 0).prefetch(2)
    next(iter(DeviceFeed(DEVICE).open(host.apply(testing.assert_next(["MapAndBatch"])))))
    with pytest.raises(tf.errors.InvalidArgumentError, match="MapAndBatch"):
        next(iter(DeviceFeed(DEVICE).open(host.apply(testing.assert_next(["Map"])))))
