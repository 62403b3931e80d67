"""Layers behind the encoder that shorten its output: strided convolutions, alone or with attention."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom, dropout
from models.ops.operations import Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.conformer import FeedForward
from models.wav2vec2.feature_encoder import shortened_lengths
from models.wav2vec2.layers import Dtype, LayerNorm, Projection, padding_bias, sequence_mask
from models.wav2vec2.relative_attention import RelativeAttention

_EPSILON = 1e-5  # of the norm of convolution adapters, whatever the config says
_NUM_STREAMS = 4  # ids of the random numbers of a layer


class GatedConvolution(tf_keras.layers.Layer):
    """Runs a strided convolution over frames and a gated linear unit."""

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, name: str, dtype: Dtype) -> None:
        """Makes kernel [K, D, 2 D] and bias [2 D]."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._step, self._operations = config.adapter_step, operations
        size = config.head_input_size
        self.kernel = self.add_weight(
            name=f"{name}/kernel", shape=(self._step[0], size, 2 * size), initializer="he_normal"
        )
        self.bias = self.add_weight(name=f"{name}/bias", shape=(2 * size,), initializer="zeros")
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Caches the kernel in the dtype of the convolution, for `Wav2Vec2ForCTC.fix_weights`."""
        self._fixed_kernel = tf.cast(self.kernel, self.compute_dtype)

    def call(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D], with zeros past each row's length, to [B, F', D]."""
        _, stride, padding = self._step
        kernel = self.kernel if self._fixed_kernel is None else self._fixed_kernel
        x = tf.nn.conv1d(tf.pad(x, [[0, 0], [padding, padding], [0, 0]]), kernel, stride=stride, padding="VALID")
        return self._operations.gated_linear_unit(tf.nn.bias_add(x, self.bias), random)


class ShorteningLayer(tf_keras.layers.Layer):
    """A transformer layer whose input and residual are each shortened by a gated convolution, as in w2v-BERT 2.0."""

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the layer; `stream` is the first of four ids of random numbers."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config, self._stream = config, stream
        size = config.head_input_size
        norm = functools.partial(LayerNorm, size=size, epsilon=config.layer_norm_epsilon, operations=operations)
        part: functools.partial[dict[str, Any]] = functools.partial(
            dict, config=config, operations=operations, dtype=dtype
        )
        self.residual_norm = norm(name=f"{name}/residual_norm")
        self.residual = GatedConvolution(**part(name=f"{name}/residual"))
        self.attention_norm = norm(name=f"{name}/attention_norm")
        self.shortened = GatedConvolution(**part(name=f"{name}/shortened"))
        self.attention = RelativeAttention(size=size, positions="none", **part(name=f"{name}/attention", stream=stream))
        self.feed_forward_norm = norm(name=f"{name}/feed_forward_norm")
        self.feed_forward = FeedForward(
            size=size, activation=config.length_adapter_activation, **part(name=name, stream=stream + 2)
        )

    def call(self, x: tf.Tensor, valid: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D], of which `valid` [B, F, 1] is 0 for padding, to [B, F', D] with `lengths` valid frames."""
        residual = self.residual(self.residual_norm(x, random) * valid, random)
        x = self.shortened(self.attention_norm(x, random) * valid, random)
        x = self.attention(x, padding_bias(lengths, tf.shape(x)[1]), random)
        x = residual + dropout(x, self._config.convolution_dropout, random, stream=self._stream + 1)
        return self.feed_forward(self.feed_forward_norm(x, random), x, random, 1.0)


class LengthAdapter(tf_keras.layers.Layer):
    """Shortens hidden states with `num_length_adapters` layers; none of them is skipped in training."""

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, stream: int, dtype: Dtype) -> None:
        """Makes the layers; their random numbers use stream ids from `stream` upwards."""
        super().__init__(name="length_adapter", dtype=dtype)
        self._config, self._operations = config, operations
        has_attention = config.length_adapter == "attention"
        part: functools.partial[dict[str, Any]] = functools.partial(
            dict, config=config, operations=operations, dtype=dtype
        )
        if config.length_adapter_feed_forward:
            self.feed_forward = FeedForward(
                size=config.hidden_size, activation="relu", **part(name="length_adapter/feed_forward", stream=stream)
            )
        if config.head_input_size != config.hidden_size:
            self.projection = Projection(
                input_size=config.hidden_size,
                output_size=config.head_input_size,
                name="length_adapter/projection",
                dtype=dtype,
                stddev=config.initializer_range,
            )
            self.norm = LayerNorm(
                size=config.head_input_size,
                epsilon=config.layer_norm_epsilon if has_attention else _EPSILON,
                name="length_adapter/norm",
                operations=operations,
            )
        self.adapters = [
            ShorteningLayer(**part(name=f"length_adapter/{i}", stream=stream + _NUM_STREAMS * (i + 1)))
            if has_attention
            else GatedConvolution(**part(name=f"length_adapter/{i}"))
            for i in range(config.num_length_adapters)
        ]

    def call(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps [B, F, D] and valid lengths [B] to [B, F', D'] and their lengths."""
        config = self._config
        if config.length_adapter_feed_forward:
            x = self.feed_forward(x, x, random, 0.5)
        if config.head_input_size != config.hidden_size:
            x = self.norm(self.projection(x), random)
        for adapter in self.adapters:
            # Padding must be zero for the convolutions, like the edge of the longest row.
            valid = sequence_mask(lengths, tf.shape(x)[1], x.dtype)[:, :, tf.newaxis]
            lengths = shortened_lengths(lengths, config.adapter_step)
            if isinstance(adapter, ShorteningLayer):
                x = adapter(x, valid, lengths, random)
            else:
                x = adapter(x * valid, random)
        return x, lengths
