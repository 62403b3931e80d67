"""Element-wise parts of the network as XLA-compiled operations, with gradients that keep few tensors.

TensorFlow runs GELU, dropout, softmax's dropout and layer norm as a dozen kernels each, and each kernel reads and
writes the whole tensor. A fused operation reads its input once. The backward pass recomputes what is cheaper to compute
than to keep: random numbers, which are hashes of their position, and the statistics of norms. Matrix products and
convolutions stay outside: on CPUs XLA's are slower than oneDNN's.

`models.ops.operations.Operations` has the plain versions, which small models use: a fused operation is compiled once
for each shape, in about 0.05 s, and only large tensors pay that back. The tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from models.ops.grouped_convolution import products_backward, products_forward
from models.ops.keyed_random import keep_of

_SQRT_HALF = 0.7071067811865476
_DENSITY_AT_0 = 0.3989422804014327  # of the normal distribution

# None drops nothing, whatever the rate.
Keys: TypeAlias = tf.Tensor | None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets XLA compile an element-wise function, once for each shape."""
    return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes an operation with a custom gradient a function of its own."""
    # A custom gradient cannot be differentiated inside a branch of tf.cond (layer drop), but a function call can. It
    # also lets all layers share one trace.
    return tf.function(function, autograph=False, reduce_retracing=True)


def dropped(x: tf.Tensor, rate: float, keys: Keys) -> tf.Tensor:
    """Applies the dropout of `models.ops.keyed_random.dropout` to x [..., N], given its keys uint32 [...]."""
    if keys is None or rate == 0.0:
        return x
    scaled = tf.cast(tf.cast(x, tf.float32) * (1.0 / (1.0 - rate)), x.dtype)
    return tf.where(keep_of(keys, tf.shape(x)[-1], rate), scaled, tf.zeros([], x.dtype))


def _as_it_is(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    del upstream
    return x


def keeping_input(
    forward: Callable[..., tf.Tensor],
    backward: Callable[..., tf.Tensor],
    *,
    again: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = _as_it_is,
) -> Callable[..., tf.Tensor]:
    """Makes an operation of x [..., N] with dropout that keeps only x for the backward pass.

    Args:
        forward: (x, keys, rate) -> result of x's shape.
        backward: (x, upstream gradient, keys, rate) -> gradient of x.
        again: (x, upstream gradient) -> the x that `backward` gets.

    Returns:
        The operation. Its keywords are the dropout rate, and uint32 [...] of `UpdateRandom.vector_keys` as keys; None
        drops nothing.
    """

    @called
    def run(x: tf.Tensor, *, rate: float = 0.0, keys: Keys = None) -> tf.Tensor:
        @tf.custom_gradient
        def compute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return forward(x, keys, rate), lambda upstream: backward(again(x, upstream), upstream, keys, rate)

        return compute(x)

    return run


def gelu_forward(x: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    """Returns the exact GELU of x under dropout."""
    wide = tf.cast(x, tf.float32)
    result = 0.5 * wide * (1.0 + tf.math.erf(wide * _SQRT_HALF))
    return dropped(tf.cast(result, x.dtype), rate, keys)


def gelu_backward(x: tf.Tensor, upstream: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    """Returns the gradient of `gelu_forward`."""
    wide = tf.cast(x, tf.float32)
    slope = 0.5 * (1.0 + tf.math.erf(wide * _SQRT_HALF)) + wide * tf.exp(-0.5 * wide * wide) * _DENSITY_AT_0
    return tf.cast(slope * tf.cast(dropped(upstream, rate, keys), tf.float32), x.dtype)


gelu = keeping_input(compiled(gelu_forward), compiled(gelu_backward))


def swish_forward(x: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    """Returns x times its sigmoid under dropout."""
    wide = tf.cast(x, tf.float32)
    return dropped(tf.cast(wide * tf.sigmoid(wide), x.dtype), rate, keys)


def swish_backward(x: tf.Tensor, upstream: tf.Tensor, keys: Keys, rate: float) -> tf.Tensor:
    """Returns the gradient of `swish_forward`."""
    wide = tf.cast(x, tf.float32)
    gate = tf.sigmoid(wide)
    slope = gate * (1.0 + wide * (1.0 - gate))
    return tf.cast(slope * tf.cast(dropped(upstream, rate, keys), tf.float32), x.dtype)


swish = keeping_input(compiled(swish_forward), compiled(swish_backward))


@compiled
def _glu_forward(x: tf.Tensor) -> tf.Tensor:
    value, gate = tf.split(tf.cast(x, tf.float32), 2, axis=-1)
    return tf.cast(value * tf.sigmoid(gate), x.dtype)


@compiled
def _glu_backward(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    value, gate = tf.split(tf.cast(x, tf.float32), 2, axis=-1)
    gate = tf.sigmoid(gate)
    to_value = tf.cast(upstream, tf.float32) * gate
    return tf.cast(tf.concat([to_value, to_value * value * (1.0 - gate)], axis=-1), x.dtype)


@called
def gated_linear_unit(x: tf.Tensor) -> tf.Tensor:
    """Returns the first half of x [..., 2 N] times the sigmoid of the second; keeps only x for the backward pass."""

    @tf.custom_gradient
    def compute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return _glu_forward(x), lambda upstream: _glu_backward(x, upstream)

    return compute(x)


def _normalized(x: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns x in float32 with mean 0 and variance 1 over its last axis, and the factor that scaled it."""
    wide = tf.cast(x, tf.float32)
    centered = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
    factor = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True) + epsilon)
    return centered * factor, factor


@compiled
def _norm_forward(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    return tf.cast(_normalized(x, epsilon)[0] * scale + offset, x.dtype)


@compiled
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


@called
def layer_norm(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, *, epsilon: float) -> tf.Tensor:
    """Normalizes the last axis in float32; keeps only x for the backward pass.

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


@compiled
def _add_forward(x: tf.Tensor, residual: tf.Tensor, keys: Keys, rate: float, factor: float) -> tf.Tensor:
    return residual + _scaled(dropped(x, rate, keys), factor)


@compiled
def _drop(x: tf.Tensor, keys: Keys, rate: float, factor: float) -> tf.Tensor:
    return _scaled(dropped(x, rate, keys), factor)


def _scaled(x: tf.Tensor, factor: float) -> tf.Tensor:
    return x if factor == 1.0 else x * tf.cast(factor, x.dtype)


@called
def add_dropped(x: tf.Tensor, residual: tf.Tensor, *, rate: float, keys: Keys, factor: float = 1.0) -> tf.Tensor:
    """Returns residual + factor * dropout(x); keeps no tensor for the backward pass."""

    @tf.custom_gradient
    def compute(x: tf.Tensor, residual: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        result = _add_forward(x, residual, keys, rate, factor)
        return result, lambda upstream: (_drop(upstream, keys, rate, factor), upstream)

    if (keys is None or rate == 0.0) and factor == 1.0:
        return residual + x
    return compute(x, residual)


# The shape of the kernel is an argument: a function that kernels of several shapes share does not know their shape.
@compiled
def _products_forward(x: tf.Tensor, kernel: tf.Tensor, num_groups: int, shape: tuple[int, ...]) -> tf.Tensor:
    return products_forward(x, tf.ensure_shape(kernel, shape), num_groups)


@compiled
def _products_backward(
    x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor, num_groups: int, shape: tuple[int, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    return products_backward(x, tf.ensure_shape(kernel, shape), upstream, num_groups)


@called
def _grouped_convolution(x: tf.Tensor, kernel: tf.Tensor, num_groups: int, shape: tuple[int, ...]) -> tf.Tensor:
    @tf.custom_gradient
    def compute(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return _products_backward(x, kernel, upstream, num_groups, shape)

        return _products_forward(x, kernel, num_groups, shape), gradient

    return compute(x, kernel)


def grouped_convolution(x: tf.Tensor, kernel: tf.Tensor, *, num_groups: int) -> tf.Tensor:
    """Runs `models.ops.grouped_convolution.grouped_convolution_by_products` compiled; same arguments and result."""
    return _grouped_convolution(x, tf.convert_to_tensor(kernel), num_groups, tuple(kernel.shape))


@called
def add_bias(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns x + bias, whose gradient is a product with ones: TensorFlow's sum takes ten times as long on a GPU.

    Args:
        x: [N, D].
        bias: [D].
    """

    @tf.custom_gradient
    def compute(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
            return upstream, tf.matmul(ones, upstream)[0]

        return tf.nn.bias_add(x, bias), gradient

    return compute(x, bias)
