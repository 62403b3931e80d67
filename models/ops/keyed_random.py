"""Counter-based random numbers keyed by (seed, update, row, stream).

Dropout and masks must not depend on how the rows of an update are split over replicas and microbatches. So there is no
generator state: each number is a hash of a per-row key and the element's coordinates within the row. A stream id tells
the places in the network apart. The hash is the 32-bit "lowbias32" finalizer of Chris Wellons' search for low-bias
integer mixers (https://nullprogram.com/blog/2018/07/31/).
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: consecutive stream ids land far apart
# The first of the values that are folded into the keys of a row's further views; above every stream id.
_VIEWS = 1 << 24


def _mix(x: tf.Tensor) -> tf.Tensor:
    """Scrambles uint32 values; every input bit reaches every output bit."""
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
    x *= tf.constant(0x7FEB352D, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(15, tf.uint32)))
    x *= tf.constant(0x846CA68B, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))


def _fold_in(key: tf.Tensor, value: tf.Tensor | int) -> tf.Tensor:
    """Derives a new uint32 key from a key and an integer."""
    return _mix(key * tf.constant(_GOLDEN, tf.uint32) + _mix(tf.cast(value, tf.uint32) + tf.constant(1, tf.uint32)))


class UpdateRandom:
    """Draws the random numbers of one update.

    Calls with the same seed, update, row ids and stream give the same numbers wherever they run. A row's numbers do not
    change when other rows join or leave the batch.

        random = UpdateRandom(seed=0, update=global_step, row_ids=batch["utterance_index"])
        logits = model(waveform, waveform_lengths, training=True, random=random)

    Attributes:
        num_views: Number of views of each row, which all have numbers of their own.
    """

    def __init__(self, *, seed: int | tf.Tensor, update: tf.Tensor, row_ids: tf.Tensor, num_views: int = 1) -> None:
        """Derives the keys; runs eagerly or in a graph.

        Args:
            seed: Seed of the run.
            update: Integer scalar, the global step.
            row_ids: Integers [B] that identify the rows, such as utterance indices.
            num_views: Number of views of each row. With more than one, B below is num_views times as large: first views
                of all rows, whose numbers are those of a single view, then second views.
        """
        base = _fold_in(tf.constant(0x5EED, tf.uint32), tf.cast(seed, tf.int64))
        self._update_key = _fold_in(base, update)
        self._row_keys = _fold_in(self._update_key, row_ids)
        self.num_views = num_views
        if num_views > 1:
            further = [_fold_in(self._row_keys, _VIEWS + view) for view in range(1, num_views)]
            self._row_keys = tf.concat([self._row_keys, *further], axis=0)

    def uniform_rows(self, shape: tf.Tensor | list[int], *, stream: int) -> tf.Tensor:
        """Returns float32 numbers in [0, 1) of shape [B, ...].

        An element's number depends on its row and its coordinates, not on the shape: a row padded to another width has
        the same numbers where it has data. All dimensions but the last are folded into the key, which costs one hash
        per vector instead of one per element.

        Args:
            shape: Full shape [B, ...] of known rank; B must be the number of rows.
            stream: Id of the place in the network; equal ids give equal numbers.
        """
        shape = tf.convert_to_tensor(shape, tf.int32)
        return uniform_of(self.vector_keys(shape, stream=stream), shape[-1])

    def vector_keys(self, shape: tf.Tensor | list, *, stream: int) -> tf.Tensor:
        """Returns the uint32 keys of `shape` without its last dimension, from which `uniform_of` makes the numbers."""
        keys = _fold_in(self._row_keys, stream)
        for size in tf.unstack(tf.convert_to_tensor(shape, tf.int32)[1:-1]):
            keys = _fold_in(keys[..., tf.newaxis], tf.range(size))
        return keys

    def uniform(self, *, stream: int) -> tf.Tensor:
        """Returns one float32 number in [0, 1) for the whole update, the same on every replica."""
        bits = tf.bitwise.right_shift(_fold_in(self._update_key, stream), tf.constant(8, tf.uint32))
        return tf.cast(bits, tf.float32) * (2.0**-24)


def _bits_of(keys: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    # Cast from int32, because tf.range lacks a uint32 kernel on some devices.
    counter = tf.cast(tf.range(width), tf.uint32) * tf.constant(_GOLDEN, tf.uint32)
    return _mix(counter + keys[..., tf.newaxis])


def uniform_of(keys: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Returns float32 numbers in [0, 1) of shape [..., width] from uint32 keys [...]."""
    bits = _bits_of(keys, width)
    # With 24 bits every value is exact in float32 and 1.0 cannot occur.
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * (2.0**-24)


def keep_of(keys: tf.Tensor, width: int | tf.Tensor, rate: float) -> tf.Tensor:
    """Returns `uniform_of(keys, width) >= rate` as bool without converting any number to float.

    Args:
        keys: uint32 [...].
        width: Size of the last dimension.
        rate: In [0, 1).

    Raises:
        ValueError: If rate is not in [0, 1).
    """
    return _bits_of(keys, width) >= tf.constant(keep_limit(rate), tf.uint32)


def keep_limit(rate: float) -> int:
    """Returns the 32 random bits from which on an element is kept; for `rate` in [0, 1), else raises ValueError."""
    if not 0.0 <= np.float32(rate) < 1.0:
        raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
    return math.ceil(float(np.float32(rate)) * 2**24) << 8


def dropout(x: tf.Tensor, rate: float, random: UpdateRandom | None, *, stream: int) -> tf.Tensor:
    """Applies inverted dropout with the row-keyed numbers.

    Args:
        x: Tensor [B, ...].
        rate: Probability that an element is set to zero; the rest are scaled by 1 / (1 - rate).
        random: Random numbers of the update; None (inference) returns `x` itself.
        stream: Id of the place in the network.

    Returns:
        Tensor of x's shape and dtype.
    """
    if random is None or rate == 0.0:
        return x
    keep = random.uniform_rows(tf.shape(x), stream=stream) >= rate
    # Scale in float32: bfloat16 would round the factor 1.1111 to 1.1094 at every dropout.
    scaled = tf.cast(tf.cast(x, tf.float32) * (1.0 / (1.0 - rate)), x.dtype)
    return tf.where(keep, scaled, tf.zeros([], x.dtype))
