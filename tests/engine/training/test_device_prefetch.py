"""Batches of any shape are on the device before the update that needs them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from tests.engine.training.test_trainer import NUM_ROWS, make_trainer
from tests.helpers.engine_toys import toy_batch


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_the_next_batches_are_fetched_while_an_update_runs(two_replicas, num_replicas):
    strategy = two_replicas if num_replicas == 2 else None
    size, made = NUM_ROWS // num_replicas, []

    def dataset_fn(context, start_update):
        del context

        def make(number):
            made.append(int(number))
            update, replica = divmod(int(number), num_replicas)
            rows = {key: x[replica * size : (replica + 1) * size] for key, x in toy_batch(update, NUM_ROWS).items()}
            rows["waveform"] = np.pad(rows["waveform"], [(0, 0), (0, 4 * (update % 3))])  # every shape is another one
            return list(rows.values())

        example = toy_batch(0, NUM_ROWS)

        def load(number):
            tensors = tf.numpy_function(make, [number], [x.dtype for x in example.values()])
            for key, tensor in zip(example, tensors, strict=True):
                tensor.set_shape([size, *[None] * (example[key].ndim - 1)])
            return dict(zip(example, tensors, strict=True))

        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        # No prefetch of its own: what is made ahead is made for the device.
        return tf.data.Dataset.range(start_update * num_replicas, 300).map(load).with_options(options)

    trainer = make_trainer(strategy, dataset_fn=dataset_fn)
    trainer.train(tf.constant(2))
    (worker,) = trainer._train_iter._iterators
    assert isinstance(worker._iterator, multi_device_iterator_ops.OwnedMultiDeviceIterator)
    deadline = time.monotonic() + 5
    while len(made) < 4 * num_replicas and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) >= 4 * num_replicas  # updates 2 and 3 are ready before anybody asks for them
    trainer.train(tf.constant(3))
    assert int(trainer.global_step.numpy()) == 5
