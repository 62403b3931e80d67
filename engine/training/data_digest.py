"""Computes a digest of all training data seen so far, including its order."""

from __future__ import annotations

import tensorflow as tf

# An update's digest travels in pieces with its statistics, so that it needs no all-reduce of its own.
NUM_PIECES, _PIECE_BITS = 3, 14
# Large odd multipliers as in 64-bit mixing functions, written as signed numbers for TensorFlow.
_MIX_ROW, _MIX_POSITION, _MIX_UPDATE = -0x61C8864680B583EB, 0x2545F4914F6CDD1D, 0x5851F42D4C957F2D


def digest_pieces(utterance_index: tf.Tensor, replica: tf.Tensor | int) -> list[tf.Tensor]:
    """Hashes which utterance is where in the global batch, as sums over this replica's rows; graph.

    Padding rows count for nothing, because how many there are depends on the number of replicas. The pieces are
    integers small enough for float32 to sum those of a thousand rows exactly in any order.

    Args:
        utterance_index: int64 [B]; negative for padding rows, which follow the update's last row.
        replica: Number of this replica; every replica has B rows, so a row's place in the update follows from it.
    """
    size = tf.shape(utterance_index, tf.int64)[0]
    position = tf.cast(replica, tf.int64) * size + tf.range(size) + 1
    mixed = (utterance_index + 2) * tf.constant(_MIX_ROW, tf.int64) + position * tf.constant(_MIX_POSITION, tf.int64)
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, tf.constant(29, tf.int64)))
    mixed = tf.where(utterance_index >= 0, mixed * tf.constant(_MIX_ROW, tf.int64), 0)
    mask = tf.constant((1 << _PIECE_BITS) - 1, tf.int64)
    return [
        tf.reduce_sum(tf.cast(tf.bitwise.bitwise_and(tf.bitwise.right_shift(mixed, shift), mask), tf.float32))
        for shift in (tf.constant(8 + 16 * i, tf.int64) for i in range(NUM_PIECES))
    ]


def next_digest(digest: tf.Variable, pieces: tf.Tensor) -> tf.Tensor:
    """Returns the digest after an update; graph, cross-replica context.

    Args:
        digest: int64 scalar, digest of all updates before.
        pieces: float32 [NUM_PIECES], `digest_pieces` of the update, summed over the replicas.
    """
    update = tf.constant(0, tf.int64)
    for piece in tf.unstack(tf.cast(pieces, tf.int64)):
        update = tf.bitwise.left_shift(update, tf.constant(20, tf.int64)) + piece
    return (digest + update) * tf.constant(_MIX_UPDATE, tf.int64)
