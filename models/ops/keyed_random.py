"""Counter-based random numbers keyed by (seed, update, row, place in the network).

Dropout and masks must not depend on how the rows of an update are spread over replicas and microbatches. So no
generator has state: each number is a hash of a per-row key and the element's coordinates within the row. The hash is
the 32-bit "lowbias32" finalizer of Chris Wellons' search for low-bias integer mixers
(https://nullprogram.com/blog/2018/07/31/).
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: consecutive salts land far apart


def _mix(x: tf.Tensor) -> tf.Tensor:
    """Scrambles uint32 values; every input bit reaches every output bit."""
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
    x *= tf.constant(0x7FEB352D, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(15, tf.uint32)))
    x *= tf.constant(0x846CA68B, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))


def _fold(key: tf.Tensor, value: tf.Tensor | int) -> tf.Tensor:
    """Derives a new uint32 key from a key and an integer."""
    return _mix(key * tf.constant(_GOLDEN, tf.uint32) + _mix(tf.cast(value, tf.uint32) + tf.constant(1, tf.uint32)))


class UpdateRandom:
    """The random numbers of one update.

    Two calls with the same (seed, update, utterance indices) give the same numbers wherever they run; a row's numbers
    do not change when other rows join or leave the batch.
    """

    def __init__(self, *, seed: int | tf.Tensor, update: tf.Tensor, row_ids: tf.Tensor) -> None:
        """Derives the keys; graph or eager.

        Args:
            seed: Seed of the run.
            update: Integer scalar, the global step.
            row_ids: Integers [B] that name the rows, such as utterance indices.
        """
        base = _fold(tf.constant(0x5EED, tf.uint32), tf.cast(seed, tf.int64))
        self._update_key = _fold(base, update)
        self._row_keys = _fold(self._update_key, row_ids)

    def uniform_rows(self, shape: tf.Tensor | list[int], *, salt: int) -> tf.Tensor:
        """Returns float32 numbers in [0, 1) of shape [B, ...].

        An element's number depends on its row and its coordinates, not on the shape: a row padded to another width has
        the same numbers where it has data. Every dimension but the last is folded into the key, which costs one hash
        per vector and not per element.

        Args:
            shape: The full shape, [B, ...], of known rank; B must be the number of rows.
            salt: Names the place in the network; equal salts give equal numbers.
        """
        shape = tf.convert_to_tensor(shape, tf.int32)
        return uniform_of(self.vector_keys(shape, salt=salt), shape[-1])

    def vector_keys(self, shape: tf.Tensor | list, *, salt: int) -> tf.Tensor:
        """Returns uint32 [B, ...] without the last dimension: what `uniform_of` makes a tensor's numbers of."""
        keys = _fold(self._row_keys, salt)
        for size in tf.unstack(tf.convert_to_tensor(shape, tf.int32)[1:-1]):
            keys = _fold(keys[..., tf.newaxis], tf.range(size))
        return keys

    def uniform(self, *, salt: int) -> tf.Tensor:
        """Returns one float32 number in [0, 1) for the whole update, the same on every replica."""
        bits = tf.bitwise.right_shift(_fold(self._update_key, salt), tf.constant(8, tf.uint32))
        return tf.cast(bits, tf.float32) * (2.0**-24)


def _bits_of(keys: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    # int32 range then cast: tf.range has no uint32 kernel on every device.
    counter = tf.cast(tf.range(width), tf.uint32) * tf.constant(_GOLDEN, tf.uint32)
    return _mix(counter + keys[..., tf.newaxis])


def uniform_of(keys: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Returns float32 numbers in [0, 1) of shape [..., width] from uint32 keys [...]."""
    bits = _bits_of(keys, width)
    # 24 bits: every value is exact in float32 and 1.0 cannot occur.
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * (2.0**-24)


def keep_of(keys: tf.Tensor, width: int | tf.Tensor, rate: float) -> tf.Tensor:
    """Returns `uniform_of(keys, width) >= rate`, bool, without making a float of any number.

    Args:
        keys: uint32 [...].
        width: Size of the last dimension.
        rate: In [0, 1).

    Raises:
        ValueError: If rate is 1 or more: its limit does not fit 32 bits.
    """
    if not 0.0 <= np.float32(rate) < 1.0:
        raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
    limit = math.ceil(float(np.float32(rate)) * 2**24) << 8
    return _bits_of(keys, width) >= tf.constant(limit, tf.uint32)


def dropout(x: tf.Tensor, rate: float, random: UpdateRandom | None, *, salt: int) -> tf.Tensor:
    """Inverted dropout with the row-keyed numbers.

    Args:
        x: Tensor [B, ...].
        rate: Share of elements set to zero; the rest are scaled by 1 / (1 - rate).
        random: The update's numbers; None (not training) returns `x` itself.
        salt: Names the place in the network.

    Returns:
        Tensor of x's shape and dtype.
    """
    if random is None or rate == 0.0:
        return x
    keep = random.uniform_rows(tf.shape(x), salt=salt) >= rate
    # Scaled in float32: in bfloat16 the factor 1.1111 would be 1.1094, a tenth of a percent less at every dropout.
    scaled = tf.cast(tf.cast(x, tf.float32) * (1.0 / (1.0 - rate)), x.dtype)
    return tf.where(keep, scaled, tf.zeros([], x.dtype))
