"""Layers that the whole network shares: projection and layer norm. `__init__` makes all variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import PLAIN, FusedOperations, Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.low_rank import LowRankUpdate

Dtype: TypeAlias = str | tf_keras.mixed_precision.Policy


def choose_operations(config: Wav2Vec2Config) -> Operations:
    """Returns the operations that a config's layers run in training: fused for wide models, else plain."""
    return FusedOperations() if config.uses_fused_ops else PLAIN


def sequence_mask(lengths: tf.Tensor, num_positions: int | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns [B, N]: 1 before each row's length, 0 from there on."""
    return tf.sequence_mask(lengths, num_positions, dtype=dtype)


# Added to the attention logits of padded keys. Finite, because a row without any valid frame must not become NaN.
_MASKED_LOGIT = -1e9


def padding_bias(lengths: tf.Tensor, num_positions: int | tf.Tensor) -> tf.Tensor:
    """Returns what masks padded keys, float32 [B, 1, 1, N]: 0 before each row's length, a large negative from there."""
    return (1.0 - sequence_mask(lengths, num_positions, tf.float32))[:, tf.newaxis, tf.newaxis, :] * _MASKED_LOGIT


class Projection(tf_keras.layers.Layer):
    """Computes x W + b, or x W, over the last axis."""

    def __init__(
        self,
        *,
        input_size: int,
        output_size: int,
        name: str,
        dtype: Dtype,
        stddev: float = 0.02,
        initializer: str | None = None,
        low_rank: LowRankUpdate | None = None,
        operations: Operations = PLAIN,
        use_bias: bool = True,
    ) -> None:
        """Makes kernel [input_size, output_size] and bias [output_size].

        Args:
            input_size: Size of the last axis of the input.
            output_size: Size of the last axis of the output.
            name: Prefix of the variables' names.
            dtype: Keras policy; under a mixed policy the variables stay float32.
            stddev: Standard deviation of the truncated normal that initializes the kernel.
            initializer: Keras name of an initializer to use instead.
            low_rank: LoRA's update of the output; None = none.
            operations: Kernels to run, plain or fused.
            use_bias: Whether there is a bias.
        """
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._output_size = output_size
        self._operations = operations
        self.kernel = self.add_weight(
            name=f"{name}/kernel",
            shape=(input_size, output_size),
            initializer=initializer or tf_keras.initializers.TruncatedNormal(stddev=stddev),
        )
        self.bias = None
        if use_bias:
            self.bias = self.add_weight(name=f"{name}/bias", shape=(output_size,), initializer="zeros")
        self.low_rank = low_rank
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Caches the kernel in the dtype of the product, for `Wav2Vec2ForCTC.fix_weights`."""
        self.merge()
        self._fixed_kernel = tf.cast(self.kernel, self.compute_dtype)

    def merge(self) -> None:
        """Adds LoRA's update to the kernel and removes it; eager, for inference only."""
        if self.low_rank is not None:
            kernel = self.kernel.numpy().astype(np.float64) + self.low_rank.matrix()
            self.kernel.assign(kernel.astype(np.float32))
            self.low_rank = None
            self._delete_tracking("low_rank")  # Keras would keep it in checkpoints and SavedModels

    def call(
        self,
        x: tf.Tensor,
        random: UpdateRandom | None = None,
        *,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Maps [..., input_size] to [..., output_size]; an activation here is fused with the bias.

        `random` holds the random numbers of LoRA's dropout and is None in inference.
        """
        # One flat matrix product, because broadcasting a 2-D kernel over a batch runs a slower batched kernel.
        shape = tf.shape(x)
        kernel = self.kernel if self._fixed_kernel is None else self._fixed_kernel
        flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
        if self.bias is not None:
            # In inference, TensorFlow joins the product, the bias and the activation.
            flat = tf.nn.bias_add(flat, self.bias) if activation else self._operations.add_bias(flat, self.bias)
        if self.low_rank is not None:
            flat += self.low_rank(x, random)
        if activation is not None:
            flat = activation(flat)
        result = tf.reshape(flat, tf.concat([shape[:-1], [self._output_size]], axis=0))
        result.set_shape(x.shape[:-1] + [self._output_size])
        return result


def adapted_projection(
    config: Wav2Vec2Config,
    *parts: str,
    input_size: int,
    output_size: int,
    name: str,
    stream: int,
    operations: Operations,
    dtype: Dtype,
    use_bias: bool = True,
) -> Projection:
    """Builds a projection of a layer, with LoRA's update if the config has one for it.

    Args:
        config: Architecture.
        *parts: Names in `LORA_TARGETS`, or `CONFORMER_LORA_TARGETS`, of the parts that lie side by side in the output;
            none where there is never an update.
        input_size: Size of the last axis of the input.
        output_size: Size of the last axis of the output.
        name: Prefix of the variables' names.
        stream: Id of the random numbers of LoRA's dropout.
        operations: Kernels to run, plain or fused.
        dtype: Keras policy; under a mixed policy the variables stay float32.
        use_bias: Whether there is a bias.
    """
    low_rank = None
    if config.lora_rank and set(parts) & set(config.lora_targets):
        low_rank = LowRankUpdate(
            config=config,
            parts=parts,
            input_size=input_size,
            output_size=output_size,
            name=name,
            stream=stream,
            dtype=dtype,
        )
    return Projection(
        input_size=input_size,
        output_size=output_size,
        name=name,
        dtype=dtype,
        stddev=config.initializer_range,
        low_rank=low_rank,
        operations=operations,
        use_bias=use_bias,
    )


class LayerNorm(tf_keras.layers.Layer):
    """Normalizes the last axis (Ba et al., https://arxiv.org/abs/1607.06450), always in float32."""

    def __init__(self, *, size: int, epsilon: float, name: str, operations: Operations = PLAIN) -> None:
        """Makes scale and offset [size], float32 under every policy.

        Args:
            size: Size of the last axis.
            epsilon: Added to the variance.
            name: Prefix of the variables' names.
            operations: Kernels to run, plain or fused.
        """
        super().__init__(name=name.replace("/", "_"), dtype="float32", autocast=False)
        self._epsilon = epsilon
        self._operations = operations
        self.scale = self.add_weight(name=f"{name}/layer_norm/scale", shape=(size,), initializer="ones")
        self.offset = self.add_weight(name=f"{name}/layer_norm/offset", shape=(size,), initializer="zeros")

    def call(self, x: tf.Tensor, random: UpdateRandom | None = None) -> tf.Tensor:
        """Normalizes [..., size] in x's dtype; `random` is None in inference."""
        return self._operations.layer_norm(x, random, scale=self.scale, offset=self.offset, epsilon=self._epsilon)
