"""Brings the batches of coming updates onto a GPU while it computes, without a copy that waits for the update.

TensorFlow copies to a GPU on a stream of its own, which first waits for all that the GPU was asked to compute by then.
So a copy runs beside an update only if it is asked for before that update is. `strategy.distribute_datasets_...` copies
ahead too, but each of its batches needs two such copies one after the other and two back to the host: the number of
its iterator comes from the GPU, and integers of 32 bits, which TensorFlow's functions on a GPU keep in the memory of
the host, go to the GPU, back and there again. While the host is ahead of the GPU, each of them waits for an update, so
the GPU ends up waiting for them. Here neither happens.
"""

from __future__ import annotations

import collections
import functools
import time

import numpy as np
import tensorflow as tf

from engine.protocols import Batch

# Batches on the device beside the one in use: one is ready, and the copy of one is asked for before the update starts.
_NUM_AHEAD = 2


class DeviceFeed:
    """The path of one replica's batches onto its device.

    The batches are as they were, in the same order. What is ahead is part of no checkpoint: a run that resumes opens
    its data at the update it has reached.
    """

    def __init__(self, device: str) -> None:
        """Creates the feed of a device."""
        self._device = device
        self._dtypes: dict[str, tf.DType] = {}
        self._made_secs: collections.deque[float] = collections.deque()

    def open(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns a dataset of the batches on the device, packed; `unpack` undoes this.

        Args:
            dataset: Batches in the memory of the host; batch -> tensor.
        """
        self._dtypes = {key: spec.dtype for key, spec in dataset.element_spec.items()}
        self._made_secs = collections.deque()
        note_time = functools.partial(_note_time, self._made_secs)

        def pack(batch: Batch) -> Batch:
            packed = {key: tf.cast(x, tf.int64) if x.dtype == tf.int32 else x for key, x in batch.items()}
            smallest = min(packed, key=lambda key: packed[key].shape.rank)
            x = packed[smallest]
            packed[smallest] = tf.ensure_shape(tf.numpy_function(note_time, [x], x.dtype, stateful=False), x.shape)
            return packed

        # `map` and `batch` as one operation copy into memory that the GPU reads by itself (pinned). NumPy's lie in
        # memory that the driver has to copy from piece by piece, which is slow and holds a thread all the while.
        options = tf.data.Options()
        options.experimental_optimization.map_and_batch_fusion = True
        packed = dataset.map(pack).batch(1, drop_remainder=True).with_options(options)
        with tf.device(self._device):
            return packed.apply(tf.data.experimental.prefetch_to_device(self._device, _NUM_AHEAD))

    def waited_secs(self, asked_secs: float) -> float:
        """Returns how long the next batch was not made yet, once it has come; called once for each batch.

        The rest of the wait is not for data: a copy to the GPU waits for its work, which holds back a host that is
        ahead of it.

        Args:
            asked_secs: `time.monotonic()` when the batch was asked for.
        """
        return max(self._made_secs.popleft() - asked_secs, 0.0)

    def unpack(self, batch: Batch) -> Batch:
        """Returns a batch as it was before `open`; graph, on the device."""
        return {key: tf.cast(tf.squeeze(x, 0), self._dtypes[key]) for key, x in batch.items()}


def _note_time(made_secs: collections.deque[float], x: np.ndarray) -> np.ndarray:
    """Notes that a batch is made, and returns a part of it as it is: what nothing used would be left out."""
    made_secs.append(time.monotonic())
    return x
