"""Element-wise parts of the network as regions that XLA compiles, each with a gradient that keeps little.

TensorFlow runs GELU, dropout, softmax's dropout and layer norm as a dozen kernels each, and every one reads and writes
the whole tensor. A region reads its input once. What a gradient needs is computed again where that is cheaper than to
keep it: random numbers, which are hashes of their place, and statistics of norms. Matrix products and convolutions stay
outside: XLA's own are slower on CPUs than oneDNN's.

`models.wav2vec2.layers` and `models.ops.keyed_random` have the plain versions, which small models use: a region is
compiled once for each shape, some 0.05 s, and only large tensors pay that back. The tests compare the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from models.ops.attention_logits import add_mask, masked_logits
from models.ops.keyed_random import keep_of

_SQRT_HALF = 0.7071067811865476
_DENSITY_AT_0 = 0.3989422804014327  # of the normal distribution

# A rate without keys: nothing is dropped.
Keys: TypeAlias = tf.Tensor | None


def drop_compilers_first_notice() -> None:
    """Compiles a trivial function with stderr closed: XLA's first compilation prints two lines about itself, once.

    Nothing else turns them off. Call where TensorFlow's devices have been configured.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed: nobody would read them
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with tf.init_scope(), tf.device("CPU:0"):
            tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)(tf.constant(0.0))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _region(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    # A custom gradient cannot be differentiated inside a branch of tf.cond (layer drop), a call of a function can; and
    # twelve layers share one trace.
    return tf.function(function, autograph=False, reduce_retracing=True)


def _dropped(x: tf.Tensor, rate: float, keys: Keys) -> tf.Tensor:
    """`models.ops.keyed_random.dropout`, in the dtype of x."""
    if keys is None or rate == 0.0:
        return x
    scaled = tf.cast(tf.cast(x, tf.float32) * (1.0 / (1.0 - rate)), x.dtype)
    return tf.where(keep_of(keys, tf.shape(x)[-1], rate), scaled, tf.zeros([], x.dtype))


@_region
def _gelu_forward(x: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    wide = tf.cast(x, tf.float32)
    result = 0.5 * wide * (1.0 + tf.math.erf(wide * _SQRT_HALF))
    return _dropped(tf.cast(result, x.dtype), rate, keys)


@_region
def _gelu_backward(x: tf.Tensor, upstream: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    wide = tf.cast(x, tf.float32)
    slope = 0.5 * (1.0 + tf.math.erf(wide * _SQRT_HALF)) + wide * tf.exp(-0.5 * wide * wide) * _DENSITY_AT_0
    return tf.cast(slope * tf.cast(_dropped(upstream, rate, keys), tf.float32), x.dtype)


@_function
def gelu(x: tf.Tensor, *, rate: float = 0.0, keys: Keys = None) -> tf.Tensor:
    """Exact GELU, then dropout; keeps x alone.

    Args:
        x: [..., N].
        rate: Dropout rate.
        keys: uint32 [...] of `UpdateRandom.vector_keys`; None drops nothing.
    """

    @tf.custom_gradient
    def compute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return _gelu_forward(x, keys, rate), lambda upstream: _gelu_backward(x, upstream, keys, rate)

    return compute(x)


def _normalized(x: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Float32 x with mean 0 and variance 1 over its last axis, and the factor that did it."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
    factor = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + epsilon)
    return centred * factor, factor


@_region
def _norm_forward(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    return tf.cast(_normalized(x, epsilon)[0] * scale + offset, x.dtype)


@_region
def _norm_backward(
    x: tf.Tensor, scale: tf.Tensor, upstream: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    normalized, factor = _normalized(x, epsilon)
    upstream = tf.cast(upstream, tf.float32)
    axes = list(range(x.shape.rank - 1))
    scaled = upstream * scale
    mean = tf.reduce_mean(scaled, axis=-1, keepdims=True)
    along = tf.reduce_mean(scaled * normalized, axis=-1, keepdims=True)
    gradient = tf.cast(factor * (scaled - mean - normalized * along), x.dtype)
    return gradient, tf.reduce_sum(upstream * normalized, axis=axes), tf.reduce_sum(upstream, axis=axes)


@_function
def layer_norm(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, *, epsilon: float) -> tf.Tensor:
    """Layer norm over the last axis in float32; keeps x alone.

    Args:
        x: [..., N] of known rank.
        scale: float32 [N].
        offset: float32 [N].
        epsilon: Added to the variance.
    """

    @tf.custom_gradient
    def compute(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        return _norm_forward(x, scale, offset, epsilon), lambda upstream: _norm_backward(x, scale, upstream, epsilon)

    return compute(x, scale, offset)


@_region
def _add_forward(x: tf.Tensor, residual: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    return residual + _dropped(x, rate, keys)


@_region
def _drop(x: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    return _dropped(x, rate, keys)


@_function
def add_dropped(x: tf.Tensor, residual: tf.Tensor, *, rate: float, keys: Keys) -> tf.Tensor:
    """residual + dropout(x); keeps nothing."""

    @tf.custom_gradient
    def compute(x: tf.Tensor, residual: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        return _add_forward(x, residual, keys, rate), lambda upstream: (_drop(upstream, keys, rate), upstream)

    if keys is None or rate == 0.0:
        return residual + x
    return compute(x, residual)


@_region
def _biased(logits: tf.Tensor, key_bias: tf.Tensor) -> tf.Tensor:
    return add_mask(logits, key_bias)


@_region
def _signed_probs(probs: tf.Tensor, keys: tf.Tensor, rate: float, dtype: tf.DType) -> tf.Tensor:
    """Probabilities over 1 - rate in dtype, negative where dropped: the mask costs no tensor and no second hash."""
    scaled = tf.cast(tf.cast(probs, tf.float32) * (1.0 / (1.0 - rate)), dtype)
    return tf.where(keep_of(keys, tf.shape(probs)[-1], rate), scaled, -scaled)


@_region
def _kept(signed: tf.Tensor) -> tf.Tensor:
    # One loop over one tensor: as a second output of _signed_probs it costs more than the pass that it saves.
    return tf.maximum(signed, tf.zeros([], signed.dtype))


@_region
def _logits_backward(
    signed: tf.Tensor, to_dropped: tf.Tensor, context: tf.Tensor, upstream: tf.Tensor, rate: float
) -> tf.Tensor:
    # The sum over keys of p * dp, which softmax's gradient needs, is context * its gradient: no sum over F x F.
    along = tf.reduce_sum(tf.cast(context, tf.float32) * tf.cast(upstream, tf.float32), axis=-1, keepdims=True)
    wide = tf.cast(signed, tf.float32)
    # Where a probability is so small that its sign is lost, its gradient is zero either way.
    to_probs = tf.where(wide >= 0.0, tf.cast(to_dropped, tf.float32), 0.0)
    return tf.cast(tf.abs(wide) * (to_probs - along * (1.0 - rate)), signed.dtype)


def _transposed_product(large: tf.Tensor, small: tf.Tensor) -> tf.Tensor:
    """large^T small, for [B, H, F, F] and [B, H, F, D / H]: a quarter faster where the small one is turned around."""
    return tf.transpose(tf.matmul(small, large, transpose_a=True), [0, 1, 3, 2])


@_function
def attention(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, key_bias: tf.Tensor, *, rate: float, keys: Keys
) -> tf.Tensor:
    """softmax(query key^T + key_bias), dropout, times value; of all [B, H, F, F] tensors it keeps one.

    Args:
        query: [B, H, F, D / H], scaled.
        key: Likewise, not scaled.
        value: Likewise.
        key_bias: float32 [B, 1, 1, F].
        rate: Dropout rate of the probabilities.
        keys: uint32 [B, H, F]; None drops nothing.

    Returns:
        [B, H, F, D / H].
    """

    @tf.custom_gradient
    def compute(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        # TensorFlow's softmax kernel: XLA's sums along rows are several times slower on CPUs.
        probs = tf.nn.softmax(masked_logits(query, key, key_bias, add=_biased), axis=-1)
        drops = keys is not None and rate > 0.0
        signed = _signed_probs(probs, keys, rate, value.dtype) if drops else tf.cast(probs, value.dtype)
        context = tf.matmul(_kept(signed) if drops else signed, value)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # Not before there is an upstream gradient: what needs nothing else would be made in the forward pass, and
            # a second [B, H, F, F] tensor of every layer would wait for it.
            with tf.control_dependencies([upstream]):
                kept = _kept(signed) if drops else signed
            to_value = _transposed_product(kept, upstream)
            to_dropped = tf.matmul(upstream, value, transpose_b=True)
            to_logits = _logits_backward(signed, to_dropped, context, upstream, rate if drops else 0.0)
            return tf.matmul(to_logits, key), _transposed_product(to_logits, query), to_value

        return context, gradient

    return compute(query, key, value)
