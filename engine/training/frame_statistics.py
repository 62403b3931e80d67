"""Computes cheap training diagnostics: blank rate and confidence of the frames that have a loss."""

from __future__ import annotations

import tensorflow as tf

# The values of `frame_sums`, in order.
FRAME_SUMS = ("num_frames", "num_blank_frames", "confidence_sum", "num_labels")


def frame_sums(
    logits: tf.Tensor, num_frames: tf.Tensor, label_lengths: tf.Tensor, valid: tf.Tensor, *, blank_id: int = 0
) -> tf.Tensor:
    """Sums statistics over the frames of rows that have a loss; graph, any context.

    Args:
        logits: float32 [B, F, V].
        num_frames: Integers [B], valid frames of each row.
        label_lengths: Integers [B].
        valid: float32 [B], positive for rows that have a loss.
        blank_id: Index of the blank.

    Returns:
        float32 [4]: number of frames, number of frames whose most likely token is the blank, sum of the most likely
        token's probability, number of labels.
    """
    counts = tf.sequence_mask(num_frames, tf.shape(logits)[1]) & (valid > 0)[:, tf.newaxis]
    best = tf.reduce_max(logits, axis=-1)
    is_blank = logits[:, :, blank_id] >= best
    confidence = tf.exp(best - tf.reduce_logsumexp(logits, axis=-1))
    return tf.stack(
        [
            tf.reduce_sum(tf.cast(counts, tf.float32)),
            tf.reduce_sum(tf.cast(counts & is_blank, tf.float32)),
            tf.reduce_sum(tf.where(counts, confidence, 0.0)),
            tf.reduce_sum(tf.where(valid > 0, tf.cast(label_lengths, tf.float32), 0.0)),
        ]
    )
