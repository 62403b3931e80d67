"""Attention whose element-wise parts are operations that XLA compiles, see `models.ops.fused`.

Its four products stay with TensorFlow. Of all pairs of frames it keeps one tensor for the backward pass.
`models.ops.recomputed` keeps none, in steps that XLA compiles as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.ops import position_bias as positional
from models.ops.attention_logits import add_mask, folded_logits, folds_mask, masked_logits, softmax_dtype
from models.ops.devices import on_cpu
from models.ops.fused import Keys, called, compiled
from models.ops.keyed_random import keep_of


@compiled
def _biased(logits: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    return add_mask(logits, key_bias)


@compiled
def _positioned(logits: tf.Tensor, key_bias: tf.Tensor | None, gate: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    wide = positional.add_positions(tf.cast(logits, tf.float32), key_bias, gate, tf.cast(matrix, tf.float32))
    return tf.cast(wide, softmax_dtype(logits.dtype))


@compiled
def _to_gate(to_logits: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(to_logits, tf.float32) * tf.cast(matrix, tf.float32)
    return tf.linalg.matvec(wide, tf.ones([tf.shape(matrix)[-1]]))  # XLA's row sums take three times as long on CPUs


@compiled
def _to_distances(to_logits: tf.Tensor, gate: tf.Tensor) -> tf.Tensor:
    return positional.collapse(tf.reduce_sum(tf.cast(to_logits, tf.float32) * tf.expand_dims(gate, -1), axis=0))


@compiled
def _gated_shifted_sum(to_logits: tf.Tensor, gate: tf.Tensor) -> tf.Tensor:
    rows = tf.cast(to_logits, tf.float32) * tf.expand_dims(gate, -1)
    return tf.reduce_sum(positional.shifted_sum(rows, count=positional.BLOCK, step=1), axis=0)


_shifted_sum = compiled(positional.shifted_sum)


def _positions_backward(to_logits: tf.Tensor, gate: tf.Tensor, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradients of `add_positions` with respect to the gate and to the bias by distance."""
    to_gate = _to_gate(to_logits, matrix)
    if not on_cpu():
        return to_gate, _to_distances(to_logits, gate)
    # On CPUs XLA's loop over diagonals computes an index for each number; rows moved by constants take half the time.
    more = {"num_frames": tf.shape(matrix)[-1], "step": positional.BLOCK, "sum_shifted": _shifted_sum}
    return to_gate, positional.collapse_by_blocks(_gated_shifted_sum(to_logits, gate), **more)


@compiled
def _biased_twice(logits: tf.Tensor, key_bias: tf.Tensor, pair_bias: tf.Tensor) -> tf.Tensor:
    return add_mask(logits + pair_bias, key_bias)


@compiled
def _signed_probs(probs: tf.Tensor, keys: tf.Tensor, rate: float, dtype: tf.DType) -> tf.Tensor:
    """Returns probabilities / (1 - rate), negative where dropped: the sign stores the mask without another tensor."""
    scaled = tf.cast(tf.cast(probs, tf.float32) * (1.0 / (1.0 - rate)), dtype)
    return tf.where(keep_of(keys, tf.shape(probs)[-1], rate), scaled, -scaled)


@compiled
def _kept(signed: tf.Tensor) -> tf.Tensor:
    # A pass of its own: as a second output of _signed_probs it costs more than it saves.
    return tf.maximum(signed, tf.zeros([], signed.dtype))


@compiled
def _logits_backward(
    signed: tf.Tensor, to_dropped: tf.Tensor, context: tf.Tensor, upstream: tf.Tensor, rate: float
) -> tf.Tensor:
    # Softmax's gradient needs the sum over keys of p * dp. It equals context * d(context), so no sum over F x F.
    along = tf.reduce_sum(tf.cast(context, tf.float32) * tf.cast(upstream, tf.float32), axis=-1, keepdims=True)
    wide = tf.cast(signed, tf.float32)
    # A probability that underflows to zero loses its sign, but its gradient is zero either way.
    to_probs = tf.where(wide >= 0.0, tf.cast(to_dropped, tf.float32), 0.0)
    return tf.cast(tf.abs(wide) * (to_probs - along * (1.0 - rate)), signed.dtype)


def _transposed_product(large: tf.Tensor, small: tf.Tensor) -> tf.Tensor:
    """Returns large^T small for [B, H, F, F] and [B, H, F, D / H]; transposing the small one is a quarter faster."""
    return tf.transpose(tf.matmul(small, large, transpose_a=True), [0, 1, 3, 2])


@called
def attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    key_bias: tf.Tensor,
    gate: tf.Tensor | None = None,
    positions: positional.Positions | None = None,
    *,
    rate: float,
    keys: Keys,
    pair_bias: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns dropout(softmax(query key^T + biases)) value; keeps one [B, H, F, F] tensor for the backward pass.

    Args:
        query: [B, H, F, D / H], scaled.
        key: [B, H, F, D / H], not scaled.
        value: [B, H, F, D / H].
        key_bias: float32 [B, 1, 1, F].
        gate: float32 [B, H, F]; scales `positions`.
        positions: Added to the logits; None adds nothing.
        rate: Dropout rate of the probabilities.
        keys: uint32 [B, H, F]; None drops nothing.
        pair_bias: [B, H, F, F], added to the logits instead; None adds nothing.

    Returns:
        [B, H, F, D / H].
    """

    @tf.custom_gradient
    def compute(
        query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, *position: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[..., Any]]:
        if pair_bias is not None and folds_mask(query.dtype):
            logits = folded_logits(query, key, key_bias) + position[0]
        elif pair_bias is not None:
            product = tf.matmul(query, key, transpose_b=True)
            logits = tf.ensure_shape(_biased_twice(product, key_bias, position[0]), product.shape)
        elif positions is not None:
            logits = positional.positioned_logits(query, key, key_bias, position[0], positions.matrix, add=_positioned)
        else:
            logits = masked_logits(query, key, key_bias, add=_biased)
        # TensorFlow's softmax kernel, because XLA's row sums are several times slower on CPUs.
        probs = tf.nn.softmax(logits, axis=-1)
        drops = keys is not None and rate > 0.0
        signed = _signed_probs(probs, keys, rate, value.dtype) if drops else tf.cast(probs, value.dtype)
        context = tf.matmul(_kept(signed) if drops else signed, value)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Wait for the upstream gradient: without it this depends on the forward pass alone and could run there,
            # which would keep a second [B, H, F, F] tensor of every layer alive.
            with tf.control_dependencies([upstream]):
                kept = _kept(signed) if drops else signed
            to_value = _transposed_product(kept, upstream)
            to_dropped = tf.matmul(upstream, value, transpose_b=True)
            to_logits = _logits_backward(signed, to_dropped, context, upstream, rate if drops else 0.0)
            to_inputs = tf.matmul(to_logits, key), _transposed_product(to_logits, query), to_value
            if pair_bias is not None:
                return *to_inputs, to_logits
            if positions is None:
                return to_inputs
            return *to_inputs, *_positions_backward(to_logits, position[0], positions.matrix)

        return context, gradient

    if pair_bias is not None:
        return compute(query, key, value, pair_bias)
    return compute(query, key, value, *(() if positions is None else (gate, positions.by_distance)))
