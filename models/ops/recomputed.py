"""Operations for steps that XLA compiles as a whole, whose backward pass computes again what it needs.

Differentiated as they stand, GELU keeps three tensors and attention two of [B, H, F, F], one of them float32: most of
what a layer keeps for its backward pass. These keep their inputs, and attention the two numbers that each softmax was
normalized with, as FlashAttention does (Dao et al. 2022, https://arxiv.org/abs/2205.14135).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.ops.fused import (
    Keys,
    called,
    dropped,
    gelu_backward,
    gelu_forward,
    keeping_input,
    swish_backward,
    swish_forward,
)


def _tied(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Returns x for a computation that must not begin before the upstream gradient is known.

    Args:
        x: [..., M].
        upstream: [..., N].
    """
    # XLA computes equal terms once, and would keep them from the forward pass on; adding zero makes them others. It
    # leaves a product with zero, which may be no number, as it is; then the update has no finite gradient anyway.
    return x + 0.0 * upstream[..., :1]


# The arguments are those of `models.ops.fused.keeping_input`.
gelu = keeping_input(gelu_forward, gelu_backward, again=_tied)
swish = keeping_input(swish_forward, swish_backward, again=_tied)


@called
def attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    *more: tf.Tensor,
    make_logits: Callable[..., tf.Tensor],
    rate: float,
    keys: Keys,
) -> tf.Tensor:
    """Returns dropout(softmax(logits)) value; keeps no [B, H, F, F] tensor for the backward pass.

    Args:
        query: [B, H, F, D / H], scaled.
        key: [B, H, F, D / H], not scaled.
        value: [B, H, F, D / H].
        *more: What else the logits depend on.
        make_logits: (query, key, *more) -> logits [B, H, F, F]; the same function for all layers, which then share one
            trace.
        rate: Dropout rate of the probabilities.
        keys: uint32 [B, H, F]; None drops nothing.

    Returns:
        [B, H, F, D / H].
    """

    @tf.custom_gradient
    def compute(
        query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, *more: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        logits = tf.cast(make_logits(query, key, *more), tf.float32)
        highest = tf.reduce_max(logits, axis=-1, keepdims=True)
        exps = tf.exp(logits - highest)
        total = tf.reduce_sum(exps, axis=-1, keepdims=True)
        context = tf.matmul(dropped(tf.cast(exps / total, value.dtype), rate, keys), value)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            inputs = (query, _tied(key, upstream), *more)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                again = tf.cast(make_logits(*inputs), tf.float32)
            probs = tf.exp(again - highest) / total
            to_value = tf.matmul(dropped(tf.cast(probs, value.dtype), rate, keys), upstream, transpose_a=True)
            to_probs = tf.cast(dropped(tf.matmul(upstream, value, transpose_b=True), rate, keys), tf.float32)
            # Softmax's gradient needs the sum over keys of p * dp. It equals context * d(context): no sum over F x F.
            along = tf.reduce_sum(tf.cast(context, tf.float32) * tf.cast(upstream, tf.float32), axis=-1, keepdims=True)
            to_query, to_key, *to_more = tape.gradient(again, inputs, output_gradients=probs * (to_probs - along))
            return to_query, to_key, to_value, *to_more

        return context, gradient

    return compute(query, key, value, *more)
