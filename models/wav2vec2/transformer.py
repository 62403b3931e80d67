"""The context network: convolutional position embedding and transformer layers over feature frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom, dropout
from models.ops.operations import ACTIVATIONS
from models.ops.position_bias import Positions
from models.wav2vec2 import conformer
from models.wav2vec2.attention_adapter import AttentionAdapter
from models.wav2vec2.bottleneck import bottleneck
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import (
    Dtype,
    LayerNorm,
    adapted_projection,
    choose_operations,
    padding_bias,
    sequence_mask,
)
from models.wav2vec2.low_rank import STREAM_LORA
from models.wav2vec2.positional_convolution import PositionalConvolution, PositionalConvolutionStack
from models.wav2vec2.relative_attention import SharedPositions
from models.wav2vec2.relative_positions import PositionGate, RelativePositionBias


class SelfAttention(tf_keras.layers.Layer):
    """Multi-head self-attention (Vaswani et al., https://arxiv.org/abs/1706.03762) with one product for q, k and v."""

    def __init__(self, *, config: Wav2Vec2Config, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the projections [D, 3 D] and [D, D], and the gate of a relative position bias if there is one."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        size = config.hidden_size
        self._num_heads = config.num_heads
        self._head_size = size // config.num_heads
        self._dropout = config.attention_dropout
        self._operations = choose_operations(config)
        self._stream = stream
        project = functools.partial(
            adapted_projection, config, input_size=size, operations=self._operations, dtype=dtype
        )
        first = STREAM_LORA + stream
        self.qkv = project("q_proj", "k_proj", "v_proj", output_size=3 * size, name=f"{name}/qkv", stream=first)
        self.out = project("out_proj", output_size=size, name=f"{name}/out", stream=first + 1)
        self.position_gate = None
        if config.relative_position_buckets:
            self.position_gate = PositionGate(config=config, name=f"{name}/position_gate", dtype=dtype)

    def call(
        self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, positions: Positions | None = None
    ) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]; `key_bias`, float32 [B, 1, 1, F], masks padded keys."""
        shape = tf.shape(x)
        num_rows, num_frames = shape[0], shape[1]
        qkv = tf.reshape(self.qkv(x, random), [num_rows, num_frames, 3, self._num_heads, self._head_size])
        context = self._operations.packed_attention(
            qkv,
            key_bias,
            random,
            rate=self._dropout,
            stream=self._stream,
            gate=None if self.position_gate is None else self.position_gate(x),
            positions=positions,
        )
        context = tf.reshape(context, [num_rows, num_frames, self._num_heads * self._head_size])
        return self.out(context, random)


class TransformerLayer(tf_keras.layers.Layer):
    """Self-attention and feed-forward blocks with residuals; norms come after (post-norm) or before (pre-norm) each."""

    def __init__(self, *, config: Wav2Vec2Config, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the layer; `stream` is the first of its four stream ids of random numbers."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config = config
        self._stream = stream
        self._operations = choose_operations(config)
        size, inner = config.hidden_size, config.intermediate_size
        norm = functools.partial(LayerNorm, size=size, epsilon=config.layer_norm_epsilon, operations=self._operations)
        self.attention = SelfAttention(config=config, name=f"{name}/attention", stream=stream, dtype=dtype)
        self.attention_norm = norm(name=f"{name}/attention_norm")
        project = functools.partial(adapted_projection, config, operations=self._operations, dtype=dtype)
        self.intermediate = project(
            "intermediate_dense",
            input_size=size,
            output_size=inner,
            name=f"{name}/intermediate",
            stream=STREAM_LORA + stream + 2,
        )
        self.output_projection = project(
            "output_dense", input_size=inner, output_size=size, name=f"{name}/output", stream=STREAM_LORA + stream + 3
        )
        self.final_norm = norm(name=f"{name}/final_norm")
        self.adapter = None
        if config.attention_adapter_size:
            self.adapter = AttentionAdapter(
                config=config, name=f"{name}/adapter", operations=self._operations, dtype=dtype
            )
        adapter = functools.partial(bottleneck, config, operations=self._operations, dtype=dtype)
        self.attention_adapter = adapter(name=f"{name}/attention_adapter")
        self.output_adapter = adapter(name=f"{name}/output_adapter")

    def call(
        self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, positions: Positions | None = None
    ) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]."""
        if self._config.stable_layer_norm:
            attended = self._attend(self.attention_norm(x, random), key_bias, random, positions)
            x = self._add(attended, x, random, stream=self._stream + 1)
            hidden = self._feed_forward(self.final_norm(x, random), random)
            x = self._add(hidden, x, random, stream=self._stream + 3)
            return x if self.adapter is None else self.adapter(x, random)
        x = self._add(self._attend(x, key_bias, random, positions), x, random, stream=self._stream + 1)
        x = self.attention_norm(x, random)
        x = self._add(self._feed_forward(x, random), x, random, stream=self._stream + 3)
        return self.final_norm(x, random)

    def _add(self, x: tf.Tensor, residual: tf.Tensor, random: UpdateRandom | None, *, stream: int) -> tf.Tensor:
        """Adds a block's output, under dropout, to its input."""
        return self._operations.add_dropped(x, residual, random, rate=self._config.hidden_dropout, stream=stream)

    def _attend(
        self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, positions: Positions | None
    ) -> tf.Tensor:
        attended = self.attention(x, key_bias, random, positions)
        return attended if self.attention_adapter is None else self.attention_adapter(attended, random)

    def _feed_forward(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Runs the two projections; the caller applies the dropout of the second one."""
        if random is None:
            # In inference the product, the bias and the GELU become one kernel.
            x = self.intermediate(x, activation=ACTIVATIONS[self._config.activation])
        else:
            rate, stream, kind = self._config.activation_dropout, self._stream + 2, self._config.activation
            x = self._operations.activation(self.intermediate(x, random), random, kind=kind, rate=rate, stream=stream)
        x = self.output_projection(x, random)
        return x if self.output_adapter is None else self.output_adapter(x, random)


class Encoder(tf_keras.layers.Layer):
    """Adds the position embedding, where the config has one, and runs the layers."""

    def __init__(self, *, config: Wav2Vec2Config, stream: int, dtype: Dtype) -> None:
        """Makes the layers; their random numbers use stream ids from `stream` upwards."""
        super().__init__(name="encoder", dtype=dtype)
        self._config = config
        self._stream = stream
        operations = choose_operations(config)
        is_conformer = config.layer_kind == "conformer"
        if config.has_position_convolution:
            kind = PositionalConvolution if config.pos_conv_norm == "weight" else PositionalConvolutionStack
            self.positional_convolution = kind(config=config, dtype=dtype)
            # Conformers have the weights in their files and do not use them.
            self.positional_convolution.trainable = not is_conformer
        self.position_bias = None
        if config.relative_position_buckets:
            self.position_bias = RelativePositionBias(config=config, operations=operations, dtype=dtype)
        if config.has_encoder_norm:
            self.norm = LayerNorm(
                size=config.hidden_size,
                epsilon=config.layer_norm_epsilon,
                name="encoder/norm",
                operations=operations,
            )
        # Of each layer: its own random numbers, then that of layer drop.
        self._num_streams = (conformer.NUM_STREAMS if is_conformer else 4) + 1
        streams = [stream + 1 + self._num_streams * i for i in range(config.num_layers)]
        self.transformer_layers: list[Any]
        if is_conformer:
            self.shared_positions = SharedPositions(config=config, dtype=dtype)
            self.transformer_layers = [
                conformer.ConformerLayer(
                    config=config, operations=operations, name=f"encoder/layers/{i}", stream=first, dtype=dtype
                )
                for i, first in enumerate(streams)
            ]
        else:
            self.transformer_layers = [
                TransformerLayer(config=config, name=f"encoder/layers/{i}", stream=first, dtype=dtype)
                for i, first in enumerate(streams)
            ]

    def call(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> list[tf.Tensor]:
        """Runs the layers.

        Args:
            x: Projected features [B, F, D].
            lengths: Valid frames of each row, int32 [B].
            random: Random numbers of the update; None in inference.

        Returns:
            num_layers + 1 tensors [B, F, D]: the input of the first layer, then the output of each layer. In a pre-norm
            model the last one is after the final norm. Frames at and past a row's length are undefined.
        """
        config = self._config
        valid = sequence_mask(lengths, tf.shape(x)[1], x.dtype)[:, :, tf.newaxis]
        key_bias = padding_bias(lengths, tf.shape(x)[1])
        more: dict[str, tf.Tensor] = {}
        # The position embedding looks 64 frames ahead, so padding must be zero like the edge of the longest row.
        x *= valid
        if config.layer_kind == "conformer":
            more = {"valid": valid, "shared_positions": self.shared_positions(tf.shape(x)[1])}
        else:
            x += self.positional_convolution(x, random, valid)
            if not config.stable_layer_norm:
                x = self.norm(x, random)
        x = dropout(x, config.hidden_dropout, random, stream=self._stream)
        hidden_states = [x]
        positions = None if self.position_bias is None else self.position_bias(tf.shape(x)[1], random)
        for i, layer in enumerate(self.transformer_layers):
            run, drop_stream = functools.partial(layer, **more), self._stream + self._num_streams * (i + 1)
            x = self._maybe_skip(run, x, key_bias, random, positions, stream=drop_stream)
            hidden_states.append(x)
        hidden_states[-1] = self.normalize_output(hidden_states[-1], random)
        return hidden_states

    def normalize_output(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Applies the final norm of a pre-norm model to the output of a layer [B, F, D]; others have none."""
        return self.norm(x, random) if self._config.stable_layer_norm else x

    def _maybe_skip(
        self,
        layer: Callable[..., tf.Tensor],
        x: tf.Tensor,
        key_bias: tf.Tensor,
        random: UpdateRandom | None,
        positions: Positions | None,
        *,
        stream: int,
    ) -> tf.Tensor:
        """Applies layer drop (Fan et al., https://arxiv.org/abs/1909.11556), one draw per layer and update.

        One draw for all rows means that the layer's arithmetic is skipped, and that the result does not depend on
        replicas or microbatches.
        """
        if random is None:
            return layer(x, key_bias, random, positions)
        rate = self._config.layer_drop

        def run(x: tf.Tensor, *parts: tf.Tensor) -> tf.Tensor:
            positions = Positions(*parts) if parts else None
            if rate == 0.0:
                return layer(x, key_bias, random, positions)
            keep = random.uniform(stream=stream) >= rate
            result = tf.cond(keep, lambda: layer(x, key_bias, random, positions), lambda: tf.identity(x))
            result.set_shape(x.shape)
            return result

        # All that needs a gradient is an argument: recompute_grad gives none to a tensor that `run` captures.
        inputs = (x, *(positions or ()))
        # The draw is inside, because a custom gradient such as recompute_grad cannot be differentiated in a tf.cond.
        return tf.recompute_grad(run)(*inputs) if self._config.gradient_checkpointing else run(*inputs)
