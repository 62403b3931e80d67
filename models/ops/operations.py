"""Element-wise operations of the network, plain or fused; a layer gets one kind at construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

import tensorflow as tf

from common.whole_compilation import is_compiled_whole
from models.ops import fused, fused_attention, recomputed, relative_bias
from models.ops.attention_logits import masked_logits
from models.ops.depthwise import depthwise_convolution, fast_depthwise_convolution
from models.ops.devices import device_type, on_cpu
from models.ops.gpu_attention import attention as gpu_attention
from models.ops.grouped_convolution import grouped_convolution, grouped_convolution_by_products
from models.ops.keyed_random import UpdateRandom, dropout
from models.ops.position_bias import Positions, expand, positioned_logits


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Returns the exact (erf) GELU of Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415, not its tanh form."""
    return tf.nn.gelu(x, approximate=False)


def swish(x: tf.Tensor) -> tf.Tensor:
    """Returns x times its sigmoid (Ramachandran et al., https://arxiv.org/abs/1710.05941)."""
    return x * tf.sigmoid(x)  # tf.nn.silu has a custom gradient, which layer drop cannot differentiate


def _computes_again(random: UpdateRandom | None) -> TypeGuard[UpdateRandom]:
    """Returns whether XLA compiles what is traced now as a part of a whole training step."""
    return random is not None and (is_compiled_whole() or device_type() == "TPU")


def _attention_keys(sizes: Sequence[int | tf.Tensor], random: UpdateRandom, *, stream: int) -> tf.Tensor:
    """Returns the keys of the random numbers of attention, uint32 [B, H, F]; `sizes` are B, H and F."""
    return random.vector_keys([*sizes, sizes[-1]], stream=stream)


def _query_sizes(query: tf.Tensor) -> list[int | tf.Tensor]:
    """Returns B, H and F of queries [B, H, F, D / H]."""
    shape = tf.shape(query)
    return [shape[0], query.shape[1], shape[2]]


def _paired_logits(query: tf.Tensor, key: tf.Tensor, key_bias: tf.Tensor, pair_bias: tf.Tensor) -> tf.Tensor:
    """Returns query key^T + key_bias + pair_bias, ready for the softmax; see `Operations.attention`."""
    logits = masked_logits(query, key, key_bias)
    return logits + tf.cast(pair_bias, logits.dtype)  # on a CPU oneDNN's product adds it


ACTIVATIONS = {"gelu": gelu, "swish": swish, "relu": tf.nn.relu}


class Operations:
    """Runs every operation with TensorFlow's own kernels.

    `random` holds the random numbers of the update, and is None in inference, which drops nothing. `rate` is a dropout
    rate and `stream` names its random numbers.
    """

    def gelu(self, x: tf.Tensor, random: UpdateRandom | None, *, rate: float = 0.0, stream: int = 0) -> tf.Tensor:
        """Returns the GELU of x [B, ...] under dropout."""
        if _computes_again(random):
            return recomputed.gelu(x, rate=rate, keys=random.vector_keys(tf.shape(x), stream=stream) if rate else None)
        if random is None and is_compiled_whole():
            # tf.nn.gelu asks for erfc, which XLA writes out as 80 operations and puts into another kernel than its
            # argument, so that the whole tensor goes through memory twice. erf stays one operation.
            return recomputed.gelu(x)
        return dropout(gelu(x), rate, random, stream=stream)

    def activation(
        self, x: tf.Tensor, random: UpdateRandom | None, *, kind: str, rate: float = 0.0, stream: int = 0
    ) -> tf.Tensor:
        """Returns an activation of `ACTIVATIONS` of x [B, ...] under dropout."""
        if kind == "gelu":
            return self.gelu(x, random, rate=rate, stream=stream)
        if kind == "swish" and _computes_again(random):
            return recomputed.swish(x, rate=rate, keys=random.vector_keys(tf.shape(x), stream=stream) if rate else None)
        return dropout(ACTIVATIONS[kind](x), rate, random, stream=stream)

    def gated_linear_unit(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Returns the first half of x [..., 2 N] times the sigmoid of the second (https://arxiv.org/abs/1612.08083)."""
        del random
        value, gate = tf.split(x, 2, axis=-1)
        return value * tf.sigmoid(gate)

    def layer_norm(
        self, x: tf.Tensor, random: UpdateRandom | None, *, scale: tf.Variable, offset: tf.Variable, epsilon: float
    ) -> tf.Tensor:
        """Normalizes x [..., N] over its last axis in float32; scale and offset are float32 [N]."""
        del random
        wide = tf.cast(x, tf.float32)
        mean = tf.reduce_mean(wide, axis=-1, keepdims=True)
        centered = wide - mean
        variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
        return tf.cast(centered * (tf.math.rsqrt(variance + epsilon) * scale) + offset, x.dtype)

    def add_dropped(
        self,
        x: tf.Tensor,
        residual: tf.Tensor,
        random: UpdateRandom | None,
        *,
        rate: float,
        stream: int,
        factor: float = 1.0,
    ) -> tf.Tensor:
        """Returns residual + factor * dropout(x), both [B, ...]."""
        x = dropout(x, rate, random, stream=stream)
        return residual + (x if factor == 1.0 else x * tf.cast(factor, x.dtype))

    def packed_attention(
        self,
        qkv: tf.Tensor,
        key_bias: tf.Tensor,
        random: UpdateRandom | None,
        *,
        rate: float,
        stream: int,
        positions: Positions | None = None,
        **more: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns `attention`, [B, F, H, D / H], of queries, which it scales, keys and values side by side.

        Steps that are compiled as a whole for a GPU run it as a kernel where they can (`models.ops.gpu_attention`).

        Args:
            qkv: [B, F, 3, H, D / H].
            key_bias: As in `attention`.
            random: As in `attention`.
            rate: As in `attention`.
            stream: As in `attention`.
            positions: As in `attention`.
            **more: Other arguments of `attention`.
        """
        if positions is None and gpu_attention.can_run(qkv):
            keys = None
            if random is not None and rate:
                num_rows, num_frames, _, num_heads, _ = qkv.shape
                keys = _attention_keys([num_rows, num_heads, num_frames], random, stream=stream)
            return gpu_attention.attention(qkv, key_bias, rate=rate, keys=keys)
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]), axis=0)
        query *= tf.cast(qkv.shape[-1] ** -0.5, query.dtype)
        context = self.attention(
            query, key, value, key_bias, random, rate=rate, stream=stream, positions=positions, **more
        )
        return tf.transpose(context, [0, 2, 1, 3])

    def attention(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        key_bias: tf.Tensor,
        random: UpdateRandom | None,
        *,
        rate: float,
        stream: int,
        gate: tf.Tensor | None = None,
        positions: Positions | None = None,
        pair_bias: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns dropout(softmax(query key^T + key_bias + pair_bias)) value.

        Args:
            query: [B, H, F, D / H], scaled.
            key: [B, H, F, D / H], not scaled.
            value: [B, H, F, D / H].
            key_bias: float32 [B, 1, 1, F].
            random: Random numbers of the update.
            rate: Dropout rate of the probabilities.
            stream: Id of their random numbers.
            gate: float32 [B, H, F]; scales `positions`.
            positions: Added to the logits; None adds nothing.
            pair_bias: [B, H, F, F], added to the logits instead; None adds nothing.
        """
        more: tuple[tf.Tensor, ...] = ()
        make_logits: Callable[..., tf.Tensor] = masked_logits
        if positions is not None:
            make_logits, more = positioned_logits, (gate, positions.matrix)
        elif pair_bias is not None:
            make_logits, more = _paired_logits, (pair_bias,)
        if _computes_again(random):
            keys = _attention_keys(_query_sizes(query), random, stream=stream) if rate else None
            return recomputed.attention(
                query, key, value, key_bias, *more, make_logits=make_logits, rate=rate, keys=keys
            )
        logits = make_logits(query, key, key_bias, *more)
        probs = tf.nn.softmax(logits, axis=-1)  # [B, H, F, F]
        return tf.matmul(dropout(tf.cast(probs, value.dtype), rate, random, stream=stream), value)

    def positions(self, by_distance: tf.Tensor, random: UpdateRandom | None, *, dtype: tf.DType) -> Positions:
        """Returns the bias of each head and distance, float32 [H, 2 F - 1], as `attention` takes it.

        `dtype` is that of the network's products. In training the layers' gradients are summed in float32.
        """
        return Positions(by_distance, expand(tf.cast(by_distance, dtype) if random is None else by_distance))

    def grouped_convolution(
        self, x: tf.Tensor, kernel: tf.Tensor, random: UpdateRandom | None, *, num_groups: int
    ) -> tf.Tensor:
        """Convolves each group of channels of x [B, F + K - 1, D] with kernel [K, D / num_groups, D], unpadded."""
        del random
        if device_type() == "GPU":
            return grouped_convolution_by_products(x, kernel, num_groups=num_groups)
        return tf.nn.conv1d(x, tf.cast(kernel, x.dtype), stride=1, padding="VALID")

    def add_bias(self, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Returns x + bias for x [N, D] and bias [D]."""
        return tf.nn.bias_add(x, bias)

    def depthwise_convolution(self, x: tf.Tensor, kernel: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Convolves each channel of x, float32 [B, F + K - 1, D], with its filter of kernel, float32 [K, D]."""
        del random
        return depthwise_convolution(x, kernel)

    def skew(self, scores: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Returns `models.ops.relative_bias.skew`; in training its gradient is one that XLA compiles."""
        return relative_bias.skew(scores) if random is None else relative_bias.fast_skew(scores)

    def add_distances(
        self, query: tf.Tensor, key: tf.Tensor, distances: tf.Tensor, random: UpdateRandom | None, *, left: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns query, key and pair bias, whose logits have a bias for each clipped distance.

        In training the gradient is one that XLA compiles. On CPUs most of the bias is in further channels of query and
        key (`models.ops.relative_bias.fold_far`).

        Args:
            query: [B, H, F, D / H], scaled.
            key: [B, H, F, D / H], not scaled.
            distances: [D / H, P], the vectors that queries meet for the distances -left to P - 1 - left.
            random: Random numbers of the update.
            left: Largest distance to the left that has a vector of its own.
        """
        table = tf.matmul(query, distances)
        if on_cpu():
            return relative_bias.fold_far(query, key, table, left=left, is_training=random is not None)
        function = relative_bias.spread if random is None else relative_bias.fast_spread
        return query, key, function(table, left=left)


class FusedOperations(Operations):
    """Runs the operations of training as `models.ops.fused`; inference stays plain."""

    def __init__(self, *, in_inference: bool = False) -> None:
        """Chooses when to fuse; `in_inference` fuses GELU and layer norm without random numbers as well."""
        self._in_inference = in_inference

    def gelu(self, x: tf.Tensor, random: UpdateRandom | None, *, rate: float = 0.0, stream: int = 0) -> tf.Tensor:
        """Returns the GELU of x [B, ...] under dropout, fused in training."""
        if random is None:
            return fused.gelu(x) if self._in_inference else super().gelu(x, random)
        keys = random.vector_keys(tf.shape(x), stream=stream) if rate else None
        return fused.gelu(x, rate=rate, keys=keys)

    def activation(
        self, x: tf.Tensor, random: UpdateRandom | None, *, kind: str, rate: float = 0.0, stream: int = 0
    ) -> tf.Tensor:
        """Returns an activation of x [B, ...] under dropout; GELU and swish are fused in training."""
        if kind != "swish" or random is None:
            return super().activation(x, random, kind=kind, rate=rate, stream=stream)
        return fused.swish(x, rate=rate, keys=random.vector_keys(tf.shape(x), stream=stream) if rate else None)

    def gated_linear_unit(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Returns the gated linear unit of x [..., 2 N], fused in training."""
        return super().gated_linear_unit(x, random) if random is None else fused.gated_linear_unit(x)

    def layer_norm(
        self, x: tf.Tensor, random: UpdateRandom | None, *, scale: tf.Variable, offset: tf.Variable, epsilon: float
    ) -> tf.Tensor:
        """Normalizes x [..., N] over its last axis in float32, fused in training."""
        if random is None and not self._in_inference:
            return super().layer_norm(x, random, scale=scale, offset=offset, epsilon=epsilon)
        return fused.layer_norm(x, tf.convert_to_tensor(scale), tf.convert_to_tensor(offset), epsilon=epsilon)

    def add_dropped(
        self,
        x: tf.Tensor,
        residual: tf.Tensor,
        random: UpdateRandom | None,
        *,
        rate: float,
        stream: int,
        factor: float = 1.0,
    ) -> tf.Tensor:
        """Returns residual + factor * dropout(x), fused in training."""
        if random is None or (not rate and factor == 1.0):
            return super().add_dropped(x, residual, random, rate=rate, stream=stream, factor=factor)
        keys = random.vector_keys(tf.shape(x), stream=stream) if rate else None
        return fused.add_dropped(x, residual, rate=rate, keys=keys, factor=factor)

    def attention(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        key_bias: tf.Tensor,
        random: UpdateRandom | None,
        *,
        rate: float,
        stream: int,
        gate: tf.Tensor | None = None,
        positions: Positions | None = None,
        pair_bias: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns dropout(softmax(query key^T + key_bias + pair_bias)) value, fused in training."""
        if random is None:
            return super().attention(
                query, key, value, key_bias, random,
                rate=rate, stream=stream, gate=gate, positions=positions, pair_bias=pair_bias,
            )  # fmt: skip
        keys = _attention_keys(_query_sizes(query), random, stream=stream) if rate else None
        return fused_attention.attention(
            query, key, value, key_bias, gate, positions, rate=rate, keys=keys, pair_bias=pair_bias
        )

    def positions(self, by_distance: tf.Tensor, random: UpdateRandom | None, *, dtype: tf.DType) -> Positions:
        """Returns the bias of each head and distance; in training its gradient goes to `by_distance` alone."""
        if random is None:
            return super().positions(by_distance, random, dtype=dtype)
        return Positions(by_distance, expand(tf.stop_gradient(tf.cast(by_distance, dtype))))

    def grouped_convolution(
        self, x: tf.Tensor, kernel: tf.Tensor, random: UpdateRandom | None, *, num_groups: int
    ) -> tf.Tensor:
        """Convolves each group of channels, in training with the fast gradients of the device."""
        if random is None or device_type() == "TPU":
            return super().grouped_convolution(x, kernel, random, num_groups=num_groups)
        if on_cpu():
            return grouped_convolution(x, kernel, num_groups=num_groups)
        return fused.grouped_convolution(x, kernel, num_groups=num_groups)

    def add_bias(self, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Returns x + bias, on a GPU with a gradient that is a product with ones."""
        if device_type() != "GPU":
            return super().add_bias(x, bias)
        return fused.add_bias(x, tf.convert_to_tensor(bias))

    def depthwise_convolution(self, x: tf.Tensor, kernel: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Convolves each channel, in training on a CPU with the fast kernel gradient."""
        if random is None or not on_cpu():
            return super().depthwise_convolution(x, kernel, random)
        return fast_depthwise_convolution(x, kernel)


PLAIN = Operations()
