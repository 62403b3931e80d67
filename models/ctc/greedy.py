"""Greedy CTC decoding in the graph, on any device."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class DecodedBatch(NamedTuple):
    """Tokens of each row, left-aligned over F columns, with their frames.

    `start_frames`, `end_frames` and `probs` are undefined past a row's tokens.

    Attributes:
        tokens: int32 [B, F], padded with -1.
        num_tokens: int32 [B].
        start_frames: int32 [B, F], first frame of each token.
        end_frames: int32 [B, F], first frame after each token.
        probs: float32 [B, F], mean probability of each token over its frames.
    """

    tokens: tf.Tensor
    num_tokens: tf.Tensor
    start_frames: tf.Tensor
    end_frames: tf.Tensor
    probs: tf.Tensor


def greedy_decode(logits: tf.Tensor, lengths: tf.Tensor, *, blank_id: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the best path: the most likely token of each frame, repeats merged, blanks removed.

    All shapes follow from the input's, so XLA can compile it.

    Args:
        logits: [B, F, V].
        lengths: Integers [B], valid frames; later frames are ignored.
        blank_id: Index of the blank.

    Returns:
        Tokens int32 [B, F], left-aligned and padded with -1, and their number int32 [B].
    """
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    tokens, counts, _ = _collapse(best, lengths, blank_id)
    return tokens, counts


def greedy_decode_spans(logits: tf.Tensor, lengths: tf.Tensor, *, blank_id: int = 0) -> DecodedBatch:
    """Returns the tokens of `greedy_decode` with the frames and the probability of each token."""
    probs = tf.nn.softmax(tf.cast(logits, tf.float32))
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    tokens, counts, order = _collapse(best, lengths, blank_id)
    num_rows, num_frames = tf.shape(best)[0], tf.shape(best)[1]
    valid = tf.sequence_mask(lengths, num_frames)
    is_new = best != tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    # Number the runs of equal frames over the whole batch; frames past a row's end do not count.
    run = tf.cumsum(tf.cast(is_new, tf.int32), axis=1) - 1 + tf.range(num_rows)[:, tf.newaxis] * num_frames
    flat, num_runs = tf.reshape(run, [-1]), num_rows * num_frames
    sizes = tf.math.unsorted_segment_sum(tf.reshape(tf.cast(valid, tf.int32), [-1]), flat, num_runs)
    frame_probs = tf.where(valid, tf.reduce_max(probs, axis=-1), 0.0)
    sums = tf.math.unsorted_segment_sum(tf.reshape(frame_probs, [-1]), flat, num_runs)
    token_run = tf.gather(run, order, axis=1, batch_dims=1)
    size = tf.gather(sizes, token_run)
    return DecodedBatch(
        tokens=tokens,
        num_tokens=counts,
        start_frames=order,
        end_frames=order + size,
        probs=tf.gather(sums, token_run) / tf.cast(tf.maximum(size, 1), tf.float32),
    )


def _collapse(best: tf.Tensor, lengths: tf.Tensor, blank_id: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the tokens of a path [B, F], their number [B], and the first frame of each token [B, F]."""
    previous = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    valid = tf.sequence_mask(lengths, tf.shape(best)[1])
    keep = (best != previous) & (best != blank_id) & valid
    # A stable sort by "is dropped" moves kept tokens to the front in their order, with static shapes.
    order = tf.argsort(tf.cast(~keep, tf.int32), axis=1, stable=True)
    counts = tf.reduce_sum(tf.cast(keep, tf.int32), axis=1)
    tokens = tf.gather(best, order, axis=1, batch_dims=1)
    return tf.where(tf.sequence_mask(counts, tf.shape(best)[1]), tokens, -1), counts, order
