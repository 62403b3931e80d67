"""Logits to token sequences."""

from __future__ import annotations

import tensorflow as tf


def greedy_decode(logits: tf.Tensor, lengths: tf.Tensor, *, blank_id: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Best path: the likeliest token of each frame, repeats merged, blanks removed.

    Runs on any device: all shapes are those of the input.

    Args:
        logits: [B, F, V].
        lengths: Integers [B], valid frames; later frames are ignored.
        blank_id: Index of the blank.

    Returns:
        Tokens int32 [B, F], left-aligned and filled up with -1, and their number int32 [B].
    """
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    previous = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    valid = tf.sequence_mask(lengths, tf.shape(best)[1])
    keep = (best != previous) & (best != blank_id) & valid
    # A stable sort of "dropped?" moves kept tokens to the front in their order, with static shapes.
    order = tf.argsort(tf.cast(~keep, tf.int32), axis=1, stable=True)
    counts = tf.reduce_sum(tf.cast(keep, tf.int32), axis=1)
    tokens = tf.gather(best, order, axis=1, batch_dims=1)
    return tf.where(tf.sequence_mask(counts, tf.shape(best)[1]), tokens, -1), counts
