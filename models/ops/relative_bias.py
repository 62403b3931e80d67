"""Spreads scores by distance over pairs of frames, for attention with relative positions.

Scores come as one row for each query, ordered by the distance to the key. Row l belongs l places to the right in the
matrix of queries and keys. Viewed as one long row this is a change of the row's width, which costs a copy and no index.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from models.ops.fused import called

_BLOCK = 64  # queries of a block of `fold_far`


def skew(scores: tf.Tensor) -> tf.Tensor:
    """Returns [B, H, F, F] whose entry (l, r) is column r - l + F - 1 of row l of scores [B, H, F, 2 F].

    The columns are the distances 1 - F to F - 1, and one that is not used.
    """
    shape = tf.shape(scores)
    frames = shape[2]
    flat = tf.reshape(scores, [shape[0], shape[1], frames * 2 * frames])
    flat = flat[:, :, frames - 1 : frames - 1 + frames * (2 * frames - 1)]
    return tf.reshape(flat, [shape[0], shape[1], frames, 2 * frames - 1])[:, :, :, :frames]


def skew_gradient(upstream: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of `skew` for its output's gradient [B, H, F, F]."""
    shape = tf.shape(upstream)
    frames = shape[2]
    wide = tf.pad(upstream, [[0, 0], [0, 0], [0, 0], [0, frames - 1]])
    flat = tf.reshape(wide, [shape[0], shape[1], frames * (2 * frames - 1)])
    return tf.reshape(tf.pad(flat, [[0, 0], [0, 0], [frames - 1, 1]]), [shape[0], shape[1], frames, 2 * frames])


def spread(table: tf.Tensor, *, left: int) -> tf.Tensor:
    """Returns [B, H, F, F] whose entry (l, r) is column clip(r - l) + left of row l of table [B, H, F, P].

    Every row of the result is shifted by a constant, such that the value of the last column becomes zero; softmax does
    not see it.

    Args:
        table: Scores of the distances -left to P - 1 - left; those beyond count as the outermost ones.
        left: Largest distance to the left that has a column of its own, below P.
    """
    table -= table[:, :, :, -1:]
    frames, size, dtype = tf.shape(table)[2], table.shape[3], table.dtype
    near = band(table * _inside(frames, left=left, size=size, dtype=dtype), left=left)
    return near + table[:, :, :, :1] * far_left(frames, left, dtype)


def spread_gradient(upstream: tf.Tensor, *, left: int, size: int) -> tf.Tensor:
    """Returns the gradient of `spread` for its output's gradient [B, H, F, F] and P = `size`."""
    frames = tf.shape(upstream)[2]
    of_band = band_gradient(upstream, left=left, size=size)
    of_band *= _inside(frames, left=left, size=size, dtype=of_band.dtype)
    first = tf.reduce_sum(upstream * far_left(frames, left, upstream.dtype), axis=-1, keepdims=True)
    gradient = of_band + tf.pad(first, [[0, 0], [0, 0], [0, 0], [0, size - 1]])
    # The last column was subtracted from all of them.
    last = tf.reduce_sum(gradient, axis=-1, keepdims=True)
    return gradient - tf.pad(last, [[0, 0], [0, 0], [0, 0], [size - 1, 0]])


def fold_far(
    query: tf.Tensor, key: tf.Tensor, table: tf.Tensor, *, left: int, is_training: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns query, key and [B, H, F, F] such that query key^T plus the latter is the logits with `spread(table)`.

    All keys that are far to the left of every query of a block add the same number to a query. So each block is one
    more channel, in which the queries of the block have that number and the keys far to its left a one. The rest is a
    band of `left` + `_BLOCK` + P columns at most.

    Args:
        query: [B, H, F, D / H].
        key: [B, H, F, D / H].
        table: [B, H, F, P] as in `spread`.
        left: As in `spread`.
        is_training: Whether a gradient will be asked for; it is then made of copies.
    """
    table -= table[:, :, :, -1:]
    dtype, frames = table.dtype, tf.shape(table)[2]
    position = tf.range(frames)
    blocks = tf.range((frames + _BLOCK - 1) // _BLOCK)
    of_block = tf.cast(position[:, tf.newaxis] // _BLOCK == blocks, dtype)  # [F, N]
    is_left = tf.cast(position[:, tf.newaxis] < blocks * _BLOCK - left, dtype)  # [F, N]
    first = table[:, :, :, :1]
    # What a channel leaves out: keys that are far to the left of a query and not of the first one in its block.
    nearer = tf.range(_BLOCK)[tf.newaxis, :] + (position % _BLOCK)[:, tf.newaxis] >= _BLOCK
    wide = tf.concat([first * tf.cast(nearer, dtype), table], axis=-1)
    wide = tf.ensure_shape(wide, [None, None, None, _BLOCK + table.shape[3]])
    wide *= _inside(frames, left=left + _BLOCK, size=wide.shape[3], dtype=dtype)
    make = fast_band if is_training else band
    return (
        tf.concat([query, first * of_block], axis=-1),
        tf.concat([key, tf.ones_like(key[:, :, :, :1]) * is_left], axis=-1),
        make(wide, left=left + _BLOCK),
    )


def far_left(frames: tf.Tensor, left: int, dtype: tf.DType) -> tf.Tensor:
    """Returns [F, F]: 1 where the key is `left` frames or more before the query, else 0."""
    position = tf.range(frames)
    return tf.cast(position[tf.newaxis, :] - position[:, tf.newaxis] <= -left, dtype)


def band(table: tf.Tensor, *, left: int) -> tf.Tensor:
    """Returns [B, H, F, F] with column p of row l of table [B, H, F, P] at (l, l + p - left), and zeros elsewhere.

    Entries of the table that fall outside must be zero.
    """
    shape, size = tf.shape(table), table.shape[3]
    frames = shape[2]
    width = tf.maximum(frames, size)
    wide = tf.pad(table, [[0, 0], [0, 0], [0, 1], [0, width + 1 - size]])
    flat = tf.reshape(wide, [shape[0], shape[1], (frames + 1) * (width + 1)])
    flat = flat[:, :, left : left + frames * width]
    return tf.reshape(flat, [shape[0], shape[1], frames, width])[:, :, :, :frames]


def band_gradient(upstream: tf.Tensor, *, left: int, size: int) -> tf.Tensor:
    """Returns the gradient of `band` for its output's gradient [B, H, F, F] and P = `size`."""
    shape = tf.shape(upstream)
    frames = shape[2]
    width = tf.maximum(frames, size)
    flat = tf.pad(upstream, [[0, 0], [0, 0], [0, 0], [0, width - frames]])
    flat = tf.reshape(flat, [shape[0], shape[1], frames * width])
    missing = (frames + 1) * (width + 1) - frames * width - left
    flat = tf.pad(flat, [[0, 0], [0, 0], [left, missing]])
    return tf.reshape(flat, [shape[0], shape[1], frames + 1, width + 1])[:, :, :frames, :size]


def _inside(frames: tf.Tensor, *, left: int, size: int, dtype: tf.DType) -> tf.Tensor:
    """Returns [F, P]: 1 where a column of the table is a distance of its own to an existing key, else 0."""
    key = tf.range(frames)[:, tf.newaxis] + tf.range(size)[tf.newaxis, :] - left
    return tf.cast((key >= 0) & (key < frames) & (tf.range(size) > 0)[tf.newaxis, :], dtype)


def fast_band(table: tf.Tensor, *, left: int) -> tf.Tensor:
    """Computes `band` with a gradient of one copy."""
    return _fast_band(table, left=left, size=table.shape[3])


@called
def _fast_band(table: tf.Tensor, *, left: int, size: int) -> tf.Tensor:
    def compute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return band(x, left=left), lambda upstream: band_gradient(upstream, left=left, size=size)

    return tf.custom_gradient(compute)(tf.ensure_shape(table, [None, None, None, size]))


@called
def fast_skew(scores: tf.Tensor) -> tf.Tensor:
    """Computes `skew` with a gradient of two copies; XLA cannot compile TensorFlow's own in layer drop."""
    return tf.custom_gradient(lambda x: (skew(x), skew_gradient))(scores)


def fast_spread(table: tf.Tensor, *, left: int) -> tf.Tensor:
    """Computes `spread` with a gradient of two copies and one sum; TensorFlow's own fills and adds as well."""
    return _fast_spread(table, left=left, size=table.shape[3])


@called
def _fast_spread(table: tf.Tensor, *, left: int, size: int) -> tf.Tensor:
    # A trace for several shapes may have lost the size.
    def compute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return spread(x, left=left), lambda upstream: spread_gradient(upstream, left=left, size=size)

    return tf.custom_gradient(compute)(tf.ensure_shape(table, [None, None, None, size]))
