"""Attention logits with a bias for the distance between query and key, scaled for each query by a gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from models.ops.attention_logits import add_mask


class Positions(NamedTuple):
    """Bias of each head for each distance, which all layers share.

    Attributes:
        by_distance: float32 [H, 2 F - 1], from a key F - 1 frames before its query to one F - 1 frames after it.
        matrix: The same as float32 [H, F, F], query by key. Fused operations give it no gradient: those of many layers
            would be kept side by side until they are summed, and by distance they are far smaller.
    """

    by_distance: tf.Tensor
    matrix: tf.Tensor


def expand(by_distance: tf.Tensor) -> tf.Tensor:
    """Spreads [H, 2 F - 1] numbers over the diagonals of [H, F, F]."""
    num_heads, width = by_distance.shape[0], tf.shape(by_distance)[1]
    num_frames = (width + 1) // 2
    # Rows of one position more than the matrix is wide, laid end to end and cut anew, move by one position each.
    rows = tf.tile(tf.pad(by_distance, [[0, 0], [0, 1]])[:, tf.newaxis], [1, num_frames, 1])
    shifted = tf.reshape(tf.reshape(rows, [num_heads, -1])[:, : num_frames * width], [num_heads, num_frames, width])
    return shifted[:, :, num_frames - 1 :]


def collapse(matrix: tf.Tensor) -> tf.Tensor:
    """Sums the diagonals of [H, F, F] to [H, 2 F - 1]: the gradient of `expand`."""
    # Where XLA compiles it for other sizes again, neither size is static.
    num_heads, num_frames = tf.unstack(tf.shape(matrix)[:2])
    # Cut into rows that are one wider than the matrix, all numbers but the last: a column then holds one diagonal from
    # the middle on, and below it one before the middle. No copy wider than the matrix is made.
    flat = tf.reshape(matrix, [num_heads, num_frames * num_frames])
    rows = tf.reshape(flat[:, :-1], [num_heads, num_frames - 1, num_frames + 1])
    is_late = tf.range(num_frames - 1)[:, tf.newaxis] + tf.range(num_frames + 1) < num_frames
    late = tf.reduce_sum(tf.where(is_late, rows, 0.0), axis=1)[:, :num_frames]
    early = tf.reduce_sum(tf.where(is_late, 0.0, rows), axis=1)[:, 2:]
    middle = late[:, :1] + flat[:, -1:]
    return tf.concat([early, middle, late[:, 1:]], axis=1)


def add_positions(logits: tf.Tensor, key_bias: tf.Tensor, gate: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Returns logits + key_bias + gate * matrix in the dtype of the softmax.

    Args:
        logits: [B, H, F, F].
        key_bias: float32 [B, 1, 1, F].
        gate: float32 [B, H, F].
        matrix: float32 [H, F, F].
    """
    masked = add_mask(logits, key_bias)
    return masked + tf.cast(tf.expand_dims(gate, -1) * matrix, masked.dtype)


def positioned_logits(
    query: tf.Tensor,
    key: tf.Tensor,
    key_bias: tf.Tensor,
    gate: tf.Tensor,
    matrix: tf.Tensor,
    *,
    add: Callable[..., tf.Tensor] = add_positions,
) -> tf.Tensor:
    """Returns query key^T + key_bias + gate * matrix, ready for the softmax.

    Args:
        query: [B, H, F, D / H], scaled.
        key: [B, H, F, D / H], not scaled.
        key_bias: float32 [B, 1, 1, F].
        gate: float32 [B, H, F].
        matrix: float32 [H, F, F].
        add: `add_positions` or a fused version of it.
    """
    product = tf.matmul(query, key, transpose_b=True)
    found = add(product, key_bias, gate, matrix)
    # TensorFlow's optimizer does not know the rank of a compiled function's output, even where Python does; see
    # `attention_logits.masked_logits`.
    return found if add is add_positions else tf.ensure_shape(found, product.shape)
