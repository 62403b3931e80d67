"""Attention logits with a bias for the distance between query and key, scaled for each query by a gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from models.ops.attention_logits import add_mask, folded_logits, folds_mask, softmax_dtype

BLOCK = 16  # rows that a pass of `shifted_sum` adds up


class Positions(NamedTuple):
    """Bias of each head for each distance, which all layers share.

    Attributes:
        by_distance: float32 [H, 2 F - 1], from a key F - 1 frames before its query to one F - 1 frames after it.
        matrix: The same as [H, F, F], query by key. Fused operations give it no gradient: those of many layers would be
            kept side by side until they are summed, and by distance they are far smaller. Where it needs none it is in
            the dtype of the network's products, which halves what each layer reads.
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


def shifted_sum(rows: tf.Tensor, *, count: int, step: int) -> tf.Tensor:
    """Sums each `count` rows of [..., R, N], the r-th of them moved to the right by step * (count - 1 - r).

    Returns:
        [..., R / count rounded up, N + step * (count - 1)], float32.
    """
    shape, most = tf.shape(rows), step * (count - 1)
    missing = [[0, 0]] * (rows.shape.rank - 2) + [[0, -shape[-2] % count], [most, most]]
    rows = tf.pad(rows, missing)
    width = shape[-1] + most
    blocks = tf.reshape(rows, tf.concat([shape[:-2], [tf.shape(rows)[-2] // count, count, width + most]], axis=0))
    moved = [tf.cast(blocks[..., r, r * step : r * step + width], tf.float32) for r in range(count)]
    return tf.add_n(moved)


def collapse_by_blocks(
    rows: tf.Tensor, *, num_frames: tf.Tensor, step: int, sum_shifted: Callable[..., tf.Tensor] = shifted_sum
) -> tf.Tensor:
    """Sums rows that lie further and further to the left: what is left of `collapse` after a first `shifted_sum`.

    Args:
        rows: float32 [H, R, N], sums of `step` rows each of matrices [H, F, F].
        num_frames: Frames F.
        step: Places from one row to the next.
        sum_shifted: `shifted_sum` or a compiled version of it.

    Returns:
        float32 [H, 2 F - 1].
    """
    rows = sum_shifted(rows, count=BLOCK, step=step)
    step *= BLOCK
    num_heads, num_rows, width = tf.unstack(tf.shape(rows))
    # The last row stays; as in `expand`, rows cut anew to another width move against each other.
    rows = tf.pad(rows[:, ::-1], [[0, 0], [0, 0], [0, num_rows * step]])
    width += (num_rows - 1) * step
    flat = tf.reshape(rows, [num_heads, -1])[:, : num_rows * width]
    return tf.reduce_sum(tf.reshape(flat, [num_heads, num_rows, width]), axis=1)[:, num_rows * step - num_frames :]


def add_positions(logits: tf.Tensor, key_bias: tf.Tensor | None, gate: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Returns logits + key_bias + gate * matrix in the dtype of the softmax.

    Args:
        logits: [B, H, F, F].
        key_bias: float32 [B, 1, 1, F]; None where the logits have it already.
        gate: float32 [B, H, F].
        matrix: [H, F, F].
    """
    dtype = softmax_dtype(logits.dtype)
    masked = tf.cast(logits, dtype) if key_bias is None else add_mask(logits, key_bias)
    return masked + tf.cast(tf.expand_dims(tf.cast(gate, matrix.dtype), -1) * matrix, dtype)


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
        matrix: [H, F, F].
        add: `add_positions` or a fused version of it.
    """
    if folds_mask(query.dtype):
        product, more = folded_logits(query, key, key_bias), None
    else:
        product, more = tf.matmul(query, key, transpose_b=True), key_bias
    found = add(product, more, gate, matrix)
    # TensorFlow's optimizer does not know the rank of a compiled function's output, even where Python does; see
    # `attention_logits.masked_logits`.
    return found if add is add_positions else tf.ensure_shape(found, product.shape)
