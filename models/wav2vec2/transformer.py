"""The context network: convolutional position embedding and transformer layers over feature frames."""

from __future__ import annotations

import functools

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom, dropout
from models.ops.operations import PLAIN, FusedOperations, Operations, gelu
from models.wav2vec2.bottleneck import bottleneck
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, LayerNorm, adapted_projection, sequence_mask

# Added to the attention logits of padded keys. Finite, because a row without any valid frame must not become NaN.
_MASKED_LOGIT = -1e9
# Stream ids of LoRA's dropout, from the id of a layer's other random numbers.
_STREAM_LORA = 1 << 22


def choose_operations(config: Wav2Vec2Config) -> Operations:
    """Returns the operations that a config's layers run in training: fused for wide models, else plain."""
    return FusedOperations() if config.uses_fused_ops else PLAIN


class PositionalConvolution(tf_keras.layers.Layer):
    """Computes a relative position embedding with a grouped convolution over frames.

    The kernel is weight-normalized per kernel position (Salimans and Kingma, https://arxiv.org/abs/1602.07868):
    w[k] = g[k] * v[k] / ||v[k]||.
    """

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Makes v [K, D / groups, D], g [K, 1, 1] and bias [D]."""
        super().__init__(name="positional_convolution", dtype=dtype)
        self._kernel_size = config.pos_conv_kernel
        self._num_groups = config.pos_conv_groups
        self._operations = choose_operations(config)
        group_size = config.hidden_size // config.pos_conv_groups
        # v stays float32 under every policy: its norm would lose digits in half precision.
        stddev = (4.0 / (config.pos_conv_kernel * config.hidden_size)) ** 0.5
        name = "encoder/pos_conv"
        self.kernel_v = self.add_weight(
            name=f"{name}/kernel_v",
            shape=(config.pos_conv_kernel, group_size, config.hidden_size),
            initializer=tf_keras.initializers.RandomNormal(stddev=stddev),
            experimental_autocast=False,
        )
        # With g at the expected norm of v the kernel starts as v itself, as in the published models.
        self.kernel_g = self.add_weight(
            name=f"{name}/kernel_g",
            shape=(config.pos_conv_kernel, 1, 1),
            initializer=tf_keras.initializers.Constant(stddev * (group_size * config.hidden_size) ** 0.5),
            experimental_autocast=False,
        )
        self.bias = self.add_weight(name=f"{name}/bias", shape=(config.hidden_size,), initializer="zeros")
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Caches the normalized kernel, for `Wav2Vec2ForCTC.fix_weights`."""
        # Under float16 the convolution itself may run in float32, see `call`.
        dtype = "float32" if self.compute_dtype == "float16" else self.compute_dtype
        self._fixed_kernel = tf.cast(self._normalized_kernel(), dtype)

    def _normalized_kernel(self) -> tf.Tensor:
        norm = tf.sqrt(tf.reduce_sum(tf.square(self.kernel_v), axis=[1, 2], keepdims=True))
        return self.kernel_g * self.kernel_v / norm

    def call(self, x: tf.Tensor, random: UpdateRandom | None = None) -> tf.Tensor:
        """Maps [B, F, D], with zeros past each row's length, to the position embedding [B, F, D]."""
        output_dtype = x.dtype
        if output_dtype == tf.float16 and not tf.config.list_logical_devices("GPU"):
            # TensorFlow's CPU kernel for the gradient of a grouped convolution fails in float16.
            x = tf.cast(x, tf.float32)
        kernel = self._normalized_kernel() if self._fixed_kernel is None else self._fixed_kernel
        # An even kernel padded by half on both sides makes one frame too many; the published models drop the last.
        left = self._kernel_size // 2
        right = self._kernel_size - 1 - left
        x = tf.pad(x, [[0, 0], [left, right], [0, 0]])
        operations = PLAIN if output_dtype == tf.float16 else self._operations
        x = operations.grouped_convolution(x, kernel, random, num_groups=self._num_groups)
        x = tf.nn.bias_add(tf.cast(x, output_dtype), self.bias)
        return self._operations.gelu(x, random)


class SelfAttention(tf_keras.layers.Layer):
    """Multi-head self-attention (Vaswani et al., https://arxiv.org/abs/1706.03762) with one product for q, k and v."""

    def __init__(self, *, config: Wav2Vec2Config, name: str, stream: int, dtype: Dtype) -> None:
        """Makes the projections [D, 3 D] and [D, D]."""
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
        first = _STREAM_LORA + stream
        self.qkv = project("q_proj", "k_proj", "v_proj", output_size=3 * size, name=f"{name}/qkv", stream=first)
        self.out = project("out_proj", output_size=size, name=f"{name}/out", stream=first + 1)

    def call(self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]; `key_bias`, float32 [B, 1, 1, F], masks padded keys."""
        shape = tf.shape(x)
        num_rows, num_frames = shape[0], shape[1]
        qkv = tf.reshape(self.qkv(x, random), [num_rows, num_frames, 3, self._num_heads, self._head_size])
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]), axis=0)
        query *= tf.cast(self._head_size**-0.5, query.dtype)
        context = self._operations.attention(
            query, key, value, key_bias, random, rate=self._dropout, stream=self._stream
        )
        context = tf.transpose(context, [0, 2, 1, 3])  # [B, F, H, D / H]
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
            stream=_STREAM_LORA + stream + 2,
        )
        self.output_projection = project(
            "output_dense", input_size=inner, output_size=size, name=f"{name}/output", stream=_STREAM_LORA + stream + 3
        )
        self.final_norm = norm(name=f"{name}/final_norm")
        adapter = functools.partial(bottleneck, config, operations=self._operations, dtype=dtype)
        self.attention_adapter = adapter(name=f"{name}/attention_adapter")
        self.output_adapter = adapter(name=f"{name}/output_adapter")

    def call(self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]."""
        if self._config.stable_layer_norm:
            attended = self._attend(self.attention_norm(x, random), key_bias, random)
            x = self._add(attended, x, random, stream=self._stream + 1)
            hidden = self._feed_forward(self.final_norm(x, random), random)
            return self._add(hidden, x, random, stream=self._stream + 3)
        x = self._add(self._attend(x, key_bias, random), x, random, stream=self._stream + 1)
        x = self.attention_norm(x, random)
        x = self._add(self._feed_forward(x, random), x, random, stream=self._stream + 3)
        return self.final_norm(x, random)

    def _add(self, x: tf.Tensor, residual: tf.Tensor, random: UpdateRandom | None, *, stream: int) -> tf.Tensor:
        """Adds a block's output, under dropout, to its input."""
        return self._operations.add_dropped(x, residual, random, rate=self._config.hidden_dropout, stream=stream)

    def _attend(self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        attended = self.attention(x, key_bias, random)
        return attended if self.attention_adapter is None else self.attention_adapter(attended, random)

    def _feed_forward(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Runs the two projections; the caller applies the dropout of the second one."""
        if random is None:
            # In inference the product, the bias and the GELU become one kernel.
            x = self.intermediate(x, activation=gelu)
        else:
            rate, stream = self._config.activation_dropout, self._stream + 2
            x = self._operations.gelu(self.intermediate(x, random), random, rate=rate, stream=stream)
        x = self.output_projection(x, random)
        return x if self.output_adapter is None else self.output_adapter(x, random)


class Encoder(tf_keras.layers.Layer):
    """Adds the position embedding and runs the transformer layers."""

    def __init__(self, *, config: Wav2Vec2Config, stream: int, dtype: Dtype) -> None:
        """Makes the layers; their random numbers use stream ids from `stream` upwards."""
        super().__init__(name="encoder", dtype=dtype)
        self._config = config
        self._stream = stream
        self.positional_convolution = PositionalConvolution(config=config, dtype=dtype)
        self.norm = LayerNorm(
            size=config.hidden_size,
            epsilon=config.layer_norm_epsilon,
            name="encoder/norm",
            operations=choose_operations(config),
        )
        self.transformer_layers = [
            TransformerLayer(config=config, name=f"encoder/layers/{i}", stream=stream + 1 + 5 * i, dtype=dtype)
            for i in range(config.num_layers)
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
        key_bias = (1.0 - sequence_mask(lengths, tf.shape(x)[1], tf.float32))[:, tf.newaxis, tf.newaxis, :]
        key_bias *= _MASKED_LOGIT
        # The position embedding looks 64 frames ahead, so padding must be zero like the edge of the longest row.
        x *= valid
        x += self.positional_convolution(x, random)
        if not config.stable_layer_norm:
            x = self.norm(x, random)
        x = dropout(x, config.hidden_dropout, random, stream=self._stream)
        hidden_states = [x]
        for i, layer in enumerate(self.transformer_layers):
            x = self._maybe_skip(layer, x, key_bias, random, stream=self._stream + 5 + 5 * i)
            hidden_states.append(x)
        hidden_states[-1] = self.normalize_output(hidden_states[-1], random)
        return hidden_states

    def normalize_output(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Applies the final norm of a pre-norm model to the output of a layer [B, F, D]; others have none."""
        return self.norm(x, random) if self._config.stable_layer_norm else x

    def _maybe_skip(
        self, layer: TransformerLayer, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, *, stream: int
    ) -> tf.Tensor:
        """Applies layer drop (Fan et al., https://arxiv.org/abs/1909.11556), one draw per layer and update.

        One draw for all rows means that the layer's arithmetic is skipped, and that the result does not depend on
        replicas or microbatches.
        """
        if random is None:
            return layer(x, key_bias, random)
        rate = self._config.layer_drop

        def run(x: tf.Tensor) -> tf.Tensor:
            if rate == 0.0:
                return layer(x, key_bias, random)
            keep = random.uniform(stream=stream) >= rate
            result = tf.cond(keep, lambda: layer(x, key_bias, random), lambda: tf.identity(x))
            result.set_shape(x.shape)
            return result

        # The draw is inside, because a custom gradient such as recompute_grad cannot be differentiated in a tf.cond.
        return tf.recompute_grad(run)(x) if self._config.gradient_checkpointing else run(x)
