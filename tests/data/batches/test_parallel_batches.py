"""Batches made at the same time: as many as asked for or as there are cores, the same ones, and never copied."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

from data.batches import pipeline
from data.batches.pipeline import BATCH_DTYPES, BatchMaker, aligned_zeros, build_dataset
from tests.data.batches.test_pipeline import TOKENIZER, MemorySource, make_plan


class Maker:
    """Counts how many batches are made at the same time; update N yields N."""

    num_replicas = 1
    static_shapes = dict.fromkeys(BATCH_DTYPES, (1,))

    def __init__(self, secs=0.05, num_replicas=1):
        self.secs, self.num_replicas = secs, num_replicas
        self.num_running = self.most_running = self.num_made = 0
        self._lock = threading.Lock()

    def make(self, update, replica=0):
        with self._lock:
            self.num_running += 1
            self.num_made += 1
            self.most_running = max(self.most_running, self.num_running)
        time.sleep(self.secs)
        with self._lock:
            self.num_running -= 1
        return {key: np.full(1, update, dtype) for key, dtype in BATCH_DTYPES.items()}


def updates_of(maker, *, num_updates=24, **fields):
    fields = {"num_parallel_calls": 0, "prefetch": 0, **fields}
    dataset = build_dataset(maker, num_updates=num_updates, **fields)
    return [int(batch["utterance_index"][0]) for batch in dataset.as_numpy_iterator()]


@pytest.fixture
def determinism():
    tf.config.experimental.enable_op_determinism()
    yield
    framework_config.disable_op_determinism()


@pytest.mark.parametrize(("given", "cores", "wanted"), [(6, 2, 6), (0, 6, 6), (0, 1, 2), (0, 512, 32)])
def test_as_many_batches_are_made_at_a_time_as_asked_for_or_as_there_are_cores(monkeypatch, given, cores, wanted):
    # More than TensorFlow has threads for operations on a small machine: decoding has threads of its own.
    monkeypatch.setattr(pipeline, "count_cores", lambda: cores)
    maker = Maker(secs=0.2)
    assert updates_of(maker, num_updates=2 * wanted, num_parallel_calls=given) == list(range(2 * wanted))
    assert maker.most_running == wanted


@pytest.mark.parametrize(("given", "num_replicas", "wanted"), [(3, 1, 3), (0, 1, 4), (0, 8, 16)])
def test_batches_of_two_updates_are_kept_ready(given, num_replicas, wanted):
    maker = Maker(secs=0.0, num_replicas=num_replicas)
    iterator = iter(build_dataset(maker, num_parallel_calls=1, prefetch=given))
    next(iterator)
    most = 1 + wanted + 2  # the map holds one that is finished, and makes the one after
    deadline = time.monotonic() + 5
    while maker.num_made < wanted + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert wanted + 1 <= maker.num_made <= most


def test_op_determinism_does_not_make_them_one_by_one(determinism):
    maker = Maker(secs=0.1)
    assert updates_of(maker, num_parallel_calls=4) == list(range(24))
    assert maker.most_running == 4


def test_the_batches_do_not_depend_on_how_many_are_made_at_a_time():
    source = MemorySource([900 + 31 * index for index in range(40)])
    plan = make_plan(source, speed_factors=(0.9, 1.0, 1.1), concat_max_utterances=2)

    def read(num_parallel_calls, prefetch):
        maker = BatchMaker(
            source=source, plan=plan, tokenizer=TOKENIZER, text_normalization="librispeech", num_replicas=2
        )
        fields = {"num_parallel_calls": num_parallel_calls, "prefetch": prefetch}
        return list(build_dataset(maker, num_updates=20, **fields).as_numpy_iterator())

    alone = read(1, 1)
    for settings in ((0, 0), (8, 3), (2, 4)):
        for wanted, batch in zip(alone, read(*settings), strict=True):
            assert batch.keys() == wanted.keys()
            for key, array in batch.items():
                np.testing.assert_array_equal(array, wanted[key])


@pytest.mark.parametrize("shape", [(3, 1001), (2, 0), (5,), (64, 20_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_tensorflow_adopts_the_arrays_of_a_batch(shape, dtype):
    array = aligned_zeros(shape, dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous, bool(array.any())) == (shape, dtype, True, False)
    if array.size:
        array.flat[-1] = 7
        # Not a copy: what Python writes is in the tensor.
        tensor = tf.function(lambda: tf.numpy_function(lambda: array, [], dtype))()
        array.flat[0] = 5
        assert tensor.numpy().flat[0] == 5


def test_every_array_of_a_batch_is_adopted():
    source = MemorySource([900 + 31 * index for index in range(8)])
    maker = BatchMaker(source=source, plan=make_plan(source), tokenizer=TOKENIZER, text_normalization="librispeech")
    assert {array.ctypes.data % 64 for array in maker.make(0).values()} == {0}
