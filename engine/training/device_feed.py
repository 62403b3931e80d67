"""Brings the batches of coming updates onto a GPU while it computes, without a copy that waits for the update.

TensorFlow copies to a GPU on a stream of its own, which first waits for all that the GPU was asked to compute by then.
So a copy runs beside an update only if it is asked for before that update is. `strategy.distribute_datasets_...` copies
ahead too, but each of its batches needs two such copies one after the other and two back to the host: the number of
its iterator comes from the GPU, and integers of 32 bits, which TensorFlow's functions on a GPU keep in the memory of
the host, go to the GPU, back and there again. While the host is ahead of the GPU, each of them waits for an update, so
the GPU ends up waiting for them. Here neither happens.
"""

from __future__ import annotations

import tensorflow as tf

from engine.protocols import Batch

# Batches on the device beside the one in use: the next one is there, that after it is asked for before the update is.
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

    def open(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns a dataset of the batches on the device, packed; `unpack` undoes this.

        Args:
            dataset: Batches in the memory of the host; batch -> tensor.
        """
        self._dtypes = {key: spec.dtype for key, spec in dataset.element_spec.items()}
        # `map` and `batch` as one operation copy into memory that the GPU reads by itself (pinned). NumPy's lie in
        # memory that the driver has to copy from piece by piece, which is slow and holds a thread all the while.
        options = tf.data.Options()
        options.experimental_optimization.map_and_batch_fusion = True
        packed = dataset.map(_widen).batch(1, drop_remainder=True).with_options(options)
        with tf.device(self._device):
            return packed.apply(tf.data.experimental.prefetch_to_device(self._device, _NUM_AHEAD))

    def unpack(self, batch: Batch) -> Batch:
        """Returns a batch as it was before `open`; graph, on the device."""
        return {key: tf.cast(tf.squeeze(x, 0), self._dtypes[key]) for key, x in batch.items()}


def _widen(batch: Batch) -> Batch:
    """Returns the batch with integers of 64 bits, which stay on a GPU."""
    return {key: tf.cast(x, tf.int64) if x.dtype == tf.int32 else x for key, x in batch.items()}
