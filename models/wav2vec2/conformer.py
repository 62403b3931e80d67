"""Conformer layers: two half feed-forward blocks around self-attention and a depthwise convolution."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import ACTIVATIONS, Operations
from models.wav2vec2.bottleneck import bottleneck
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, LayerNorm, Projection, adapted_projection
from models.wav2vec2.low_rank import STREAM_LORA
from models.wav2vec2.relative_attention import RelativeAttention

_EPSILON = 1e-5  # of batch norm, and of the layer norms beside it in the published models
NUM_STREAMS = 7  # ids of the random numbers of a layer


def norm_epsilon(config: Wav2Vec2Config) -> float:
    """Returns what the layer norms of a conformer layer add to variances."""
    return _EPSILON if config.depthwise_norm == "batch" else config.layer_norm_epsilon


class FeedForward(tf_keras.layers.Layer):
    """Two projections with an activation between them."""

    def __init__(
        self,
        *,
        config: Wav2Vec2Config,
        size: int,
        activation: str,
        operations: Operations,
        name: str,
        stream: int,
        dtype: Dtype,
        module: str = "",
        adapter_name: str = "",
    ) -> None:
        """Makes the projections [size, I] and [I, size].

        Args:
            config: Architecture.
            size: Width of input and output.
            activation: Activation between the projections.
            operations: Kernels to run, plain or fused.
            name: Prefix of the variables' names.
            stream: First of two ids of random numbers; LoRA's dropout takes two from it.
            dtype: Keras policy.
            module: Name in transformers, by which targets of LoRA name the projections; "" = they are none.
            adapter_name: Prefix of the variables' names of the block's bottleneck adapter; "" = it has none.
        """
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config, self._activation, self._operations, self._stream = config, activation, operations, stream

        def projection(part: str, input_size: int, output_size: int, *, number: int) -> Projection:
            targets = [f"{module}.{part}_dense"] if module else []
            return adapted_projection(
                config, *targets, input_size=input_size, output_size=output_size, name=f"{name}/{part}",
                stream=STREAM_LORA + stream + number, operations=operations, dtype=dtype,
            )  # fmt: skip

        self.intermediate = projection("intermediate", size, config.intermediate_size, number=0)
        self.output_projection = projection("output", config.intermediate_size, size, number=1)
        self.adapter = None
        if adapter_name:
            self.adapter = bottleneck(config, name=adapter_name, operations=operations, dtype=dtype)

    def call(self, x: tf.Tensor, residual: tf.Tensor, random: UpdateRandom | None, factor: float) -> tf.Tensor:
        """Returns residual + factor * block(x), both [B, F, D]."""
        if random is None:
            # In inference the product, the bias and a GELU become one kernel.
            x = self.intermediate(x, activation=ACTIVATIONS[self._activation])
        else:
            x = self._operations.activation(
                self.intermediate(x, random), random, kind=self._activation,
                rate=self._config.activation_dropout, stream=self._stream,
            )  # fmt: skip
        x = self.output_projection(x, random)
        if self.adapter is not None:
            x = self.adapter(x, random)
        return self._operations.add_dropped(
            x, residual, random, rate=self._config.hidden_dropout, stream=self._stream + 1, factor=factor
        )


class ConvolutionModule(tf_keras.layers.Layer):
    """Gated projection, depthwise convolution, norm, activation and projection (https://arxiv.org/abs/2005.08100).

    Batch norm uses the recorded statistics in training as well: those of a batch would make a row's gradient depend on
    the other rows, on padding and on how an update is split over replicas and microbatches (docs/decisions/0022).
    """

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the projections, the kernel [K, 1, D] and the norm; `stream` is the id of its random numbers."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config, self._operations, self._stream = config, operations, stream
        size = config.hidden_size
        projection = functools.partial(
            Projection, input_size=size, dtype=dtype, initializer="he_normal", use_bias=False
        )
        norm = functools.partial(LayerNorm, size=size, epsilon=norm_epsilon(config), operations=operations)
        self.norm = norm(name=f"{name}/norm")
        self.gated = projection(output_size=2 * size, name=f"{name}/gated")
        # float32 under every policy: a sum of few products, which costs nothing beside the projections.
        add = functools.partial(self.add_weight, shape=(size,), experimental_autocast=False)
        self.kernel = add(
            name=f"{name}/depthwise/kernel", shape=(config.depthwise_kernel, 1, size), initializer="he_normal"
        )
        if config.depthwise_norm == "layer":
            self.depthwise_norm = norm(name=f"{name}/depthwise")
        else:
            self.scale = add(name=f"{name}/batch_norm/scale", initializer="ones")
            self.offset = add(name=f"{name}/batch_norm/offset", initializer="zeros")
            self.mean = add(name=f"{name}/batch_norm/mean", initializer="zeros", trainable=False)
            self.variance = add(name=f"{name}/batch_norm/variance", initializer="ones", trainable=False)
            # Read by nothing; the files of transformers have it.
            self.num_batches = self.add_weight(
                name=f"{name}/batch_norm/num_batches", shape=(), dtype="int64", initializer="zeros", trainable=False
            )
        self.out = projection(output_size=size, name=f"{name}/out")

    def call(self, x: tf.Tensor, valid: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Returns x + module(x) [B, F, D]; `valid` [B, F, 1] is 0 for padded frames, which no other frame may see."""
        config = self._config
        hidden = self._operations.gated_linear_unit(self.gated(self.norm(x, random) * valid), random)
        before = config.depthwise_kernel - 1 if config.depthwise_causal else config.depthwise_kernel // 2
        behind = config.depthwise_kernel - 1 - before
        hidden = tf.pad(tf.cast(hidden, tf.float32), [[0, 0], [before, behind], [0, 0]])
        hidden = self._depthwise(hidden, random)
        hidden = self._operations.activation(tf.cast(hidden, x.dtype), random, kind=config.activation)
        return self._operations.add_dropped(
            self.out(hidden), x, random, rate=config.convolution_dropout, stream=self._stream
        )

    def _depthwise(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps float32 [B, F + K - 1, D] to the normalized convolution, float32 [B, F, D]."""
        kernel = self.kernel[:, 0]
        if self._config.depthwise_norm == "layer":
            return self.depthwise_norm(self._operations.depthwise_convolution(x, kernel, random), random)
        # The statistics are constants, so the norm is part of the kernel.
        factor = self.scale * tf.math.rsqrt(self.variance + _EPSILON)
        x = self._operations.depthwise_convolution(x, kernel * factor, random)
        return tf.nn.bias_add(x, self.offset - self.mean * factor)


class ConformerLayer(tf_keras.layers.Layer):
    """Half a feed-forward block, self-attention, convolution, half a feed-forward block and a norm, with residuals."""

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the layer; `stream` is the first of its `NUM_STREAMS` ids of random numbers."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config, self._operations, self._stream = config, operations, stream
        size = config.hidden_size
        norm = functools.partial(LayerNorm, size=size, epsilon=norm_epsilon(config), operations=operations)
        part: functools.partial[dict[str, Any]] = functools.partial(
            dict, config=config, operations=operations, dtype=dtype
        )
        feed_forward = functools.partial(FeedForward, size=size, activation=config.activation)
        self.first_norm = norm(name=f"{name}/first_norm")
        self.first = feed_forward(module="ffn1", **part(name=f"{name}/first", stream=stream))
        self.attention_norm = norm(name=f"{name}/attention_norm")
        self.attention = RelativeAttention(
            size=size,
            positions=config.attention_positions,
            has_low_rank=True,
            **part(name=f"{name}/attention", stream=stream + 2),
        )
        self.attention_adapter = bottleneck(
            config, name=f"{name}/attention_adapter", operations=operations, dtype=dtype
        )
        self.convolution = ConvolutionModule(**part(name=f"{name}/convolution", stream=stream + 4))
        self.second_norm = norm(name=f"{name}/second_norm")
        self.second = feed_forward(
            module="ffn2", adapter_name=f"{name}/output_adapter", **part(name=f"{name}/second", stream=stream + 5)
        )
        self.final_norm = norm(name=f"{name}/final_norm")

    def call(
        self,
        x: tf.Tensor,
        key_bias: tf.Tensor,
        random: UpdateRandom | None,
        positions: None = None,
        *,
        valid: tf.Tensor,
        shared_positions: tf.Tensor | None,
    ) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D].

        Args:
            x: [B, F, D].
            key_bias: float32 [B, 1, 1, F], masks padded keys.
            random: Random numbers of the update; None in inference.
            positions: Ignored; transformer layers take the bias of `RelativePositionBias` here.
            valid: [B, F, 1], 1 for frames before each row's length and 0 from there on.
            shared_positions: What `models.wav2vec2.relative_attention.SharedPositions` computed.
        """
        del positions
        x = self.first(self.first_norm(x, random), x, random, 0.5)
        attended = self.attention(self.attention_norm(x, random), key_bias, random, shared_positions)
        if self.attention_adapter is not None:
            attended = self.attention_adapter(attended, random)
        x = self._operations.add_dropped(
            attended, x, random, rate=self._config.attention_dropout, stream=self._stream + 3
        )
        x = self.convolution(x, valid, random)
        x = self.second(self.second_norm(x, random), x, random, 0.5)
        return self.final_norm(x, random)
