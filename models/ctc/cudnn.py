"""Computes the CTC loss with TensorFlow's kernel for GPUs, which is cuDNN's."""

from __future__ import annotations

import tensorflow as tf

# Most labels of a row that cuDNN takes.
MAX_LABELS = 256

kernel = tf.raw_ops.CTCLossV2  # has no kernel for CPUs


def losses_and_gradients(
    logits: tf.Tensor, num_frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor, *, blank_id: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the loss of each row, float32 [B], and its gradient, [B, F, V].

    Args:
        logits: float32 [B, F, V]; 0 in frames that do not count.
        num_frames: int32 [B], valid frames; 0 for rows without a loss.
        labels: int32 [B, L]; `blank_id` past a row's length.
        label_lengths: int32 [B], at most `MAX_LABELS`; 0 for rows without a loss.
        blank_id: Index of the blank.
    """
    # Rows without labels are computed here: the kernel need not take them. For it they are one frame and one label.
    is_empty = label_lengths == 0
    blank_loss, blank_gradient = _losses_of_blanks(logits, num_frames, blank_id)
    length, frames = tf.maximum(label_lengths, 1), tf.maximum(num_frames, 1)
    others = [token for token in range(logits.shape[2]) if token != blank_id]
    # The kernel's blank is 0.
    moved = tf.where(labels < blank_id, labels + 1, labels)
    moved = tf.pad(moved, [[0, 0], [0, 1]])  # at least one column
    moved = tf.where(is_empty[:, tf.newaxis], 1, moved)
    place = tf.where(tf.sequence_mask(length, tf.shape(moved)[1]))
    by_time = tf.transpose(tf.where(is_empty[:, tf.newaxis, tf.newaxis], 0.0, logits), [1, 0, 2])
    losses, gradient = kernel(
        inputs=tf.gather(by_time, [blank_id, *others], axis=2) if blank_id else by_time,
        labels_indices=place,
        labels_values=tf.gather_nd(moved, place),
        sequence_length=frames,
    )
    gradient = tf.transpose(gradient, [1, 0, 2])
    if blank_id:
        gradient = tf.gather(gradient, [*range(1, blank_id + 1), 0, *range(blank_id + 1, logits.shape[2])], axis=2)
    # cuDNN may leave what is past a row's frames undefined.
    is_frame = tf.sequence_mask(num_frames, tf.shape(logits)[1])[:, :, tf.newaxis]
    gradient = tf.where(is_empty[:, tf.newaxis, tf.newaxis], blank_gradient, gradient)
    return tf.where(is_empty, blank_loss, losses), tf.where(is_frame, gradient, 0.0)


def _losses_of_blanks(logits: tf.Tensor, num_frames: tf.Tensor, blank_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the loss of each row as if it had no labels, and its gradient."""
    is_frame = tf.sequence_mask(num_frames, tf.shape(logits)[1])
    losses = tf.reduce_logsumexp(logits, axis=2) - logits[:, :, blank_id]
    blank = tf.one_hot(blank_id, tf.shape(logits)[2])
    return tf.reduce_sum(tf.where(is_frame, losses, 0.0), axis=1), tf.nn.softmax(logits) - blank
