"""The context network: convolutional position embedding and transformer layers over feature frames."""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf
import tf_keras

from models.ops import fused
from models.ops.attention_logits import masked_logits
from models.ops.devices import on_cpu
from models.ops.grouped_convolution import grouped_convolution
from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import LayerNorm, Projection, gelu, sequence_mask

# Added to the attention logits of padded keys. Finite on purpose: a row without any valid frame must not become NaN.
_MASKED_LOGIT = -1e9

Dtype: TypeAlias = str | tf_keras.mixed_precision.Policy


class PositionalConvolution(tf_keras.layers.Layer):
    """Grouped convolution over frames whose output is added as a relative position embedding.

    The kernel is weight-normalized per kernel position (Salimans and Kingma, https://arxiv.org/abs/1602.07868):
    w[k] = g[k] * v[k] / ||v[k]||.
    """

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Makes v [K, D / groups, D], g [K, 1, 1] and bias [D]."""
        super().__init__(name="positional_convolution", dtype=dtype)
        self._kernel_size = config.pos_conv_kernel
        self._num_groups = config.pos_conv_groups
        group_size = config.hidden_size // config.pos_conv_groups
        # v is kept in float32 whatever the policy: its norm would lose digits in half precision.
        stddev = (4.0 / (config.pos_conv_kernel * config.hidden_size)) ** 0.5
        name = "encoder/pos_conv"
        self.kernel_v = self.add_weight(
            name=f"{name}/kernel_v",
            shape=(config.pos_conv_kernel, group_size, config.hidden_size),
            initializer=tf_keras.initializers.RandomNormal(stddev=stddev),
            experimental_autocast=False,
        )
        # With g = the expected norm of v the kernel starts out as v itself, as the published models do.
        self.kernel_g = self.add_weight(
            name=f"{name}/kernel_g",
            shape=(config.pos_conv_kernel, 1, 1),
            initializer=tf_keras.initializers.Constant(stddev * (group_size * config.hidden_size) ** 0.5),
            experimental_autocast=False,
        )
        self.bias = self.add_weight(name=f"{name}/bias", shape=(config.hidden_size,), initializer="zeros")
        self._fixed_kernel: tf.Tensor | None = None

    def fix_weights(self) -> None:
        """Keeps the normalized kernel: see `Wav2Vec2ForCTC.fix_weights`."""
        # In float16 the convolution itself may be float32, see below.
        dtype = "float32" if self.compute_dtype == "float16" else self.compute_dtype
        self._fixed_kernel = tf.cast(self._normalized_kernel(), dtype)

    def _normalized_kernel(self) -> tf.Tensor:
        norm = tf.sqrt(tf.reduce_sum(tf.square(self.kernel_v), axis=[1, 2], keepdims=True))
        return self.kernel_g * self.kernel_v / norm

    def call(self, x: tf.Tensor, *, as_region: bool = False) -> tf.Tensor:
        """Maps [B, F, D], with zeros past each row's length, to the position embedding [B, F, D]."""
        output_dtype = x.dtype
        if output_dtype == tf.float16 and not tf.config.list_logical_devices("GPU"):
            # TensorFlow's CPU kernel for the gradient of a grouped convolution fails in float16.
            x = tf.cast(x, tf.float32)
        kernel = self._normalized_kernel() if self._fixed_kernel is None else self._fixed_kernel
        # An even kernel padded by half on both sides makes one frame too many: the reference drops the last.
        left = self._kernel_size // 2
        right = self._kernel_size - 1 - left
        x = tf.pad(x, [[0, 0], [left, right], [0, 0]])
        if as_region and on_cpu() and output_dtype != tf.float16:
            x = grouped_convolution(x, kernel, num_groups=self._num_groups)
        else:
            x = tf.nn.conv1d(x, tf.cast(kernel, x.dtype), stride=1, padding="VALID")
        x = tf.nn.bias_add(tf.cast(x, output_dtype), self.bias)
        return fused.gelu(x) if as_region else gelu(x)


class SelfAttention(tf_keras.layers.Layer):
    """Multi-head self-attention with one product for queries, keys and values."""

    def __init__(self, *, config: Wav2Vec2Config, name: str, salt: int, dtype: Dtype) -> None:
        """Makes the projections [D, 3 D] and [D, D]."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        size = config.hidden_size
        self._num_heads = config.num_heads
        self._head_size = size // config.num_heads
        self._dropout = config.attention_dropout
        self._uses_regions = config.uses_regions
        self._salt = salt
        stddev = config.initializer_range
        self.qkv = Projection(input_size=size, output_size=3 * size, name=f"{name}/qkv", dtype=dtype, stddev=stddev)
        self.out = Projection(input_size=size, output_size=size, name=f"{name}/out", dtype=dtype, stddev=stddev)

    def call(self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] and the keys' bias [B, 1, 1, F] (float32) to [B, F, D]."""
        shape = tf.shape(x)
        num_rows, num_frames = shape[0], shape[1]
        qkv = tf.reshape(self.qkv(x), [num_rows, num_frames, 3, self._num_heads, self._head_size])
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]), axis=0)
        query *= tf.cast(self._head_size**-0.5, query.dtype)
        if random is not None and self._uses_regions:
            keys = None
            if self._dropout:
                keys = random.vector_keys([num_rows, self._num_heads, num_frames, num_frames], salt=self._salt)
            context = fused.attention(query, key, value, key_bias, rate=self._dropout, keys=keys)
        else:
            probs = tf.nn.softmax(masked_logits(query, key, key_bias), axis=-1)  # [B, H, F, F]
            probs = dropout(tf.cast(probs, x.dtype), self._dropout, random, salt=self._salt)
            context = tf.matmul(probs, value)
        context = tf.transpose(context, [0, 2, 1, 3])  # [B, F, H, D / H]
        context = tf.reshape(context, [num_rows, num_frames, self._num_heads * self._head_size])
        return self.out(context)


class TransformerLayer(tf_keras.layers.Layer):
    """Self-attention and feed-forward block with residuals; norms after (post-norm) or before (pre-norm) each."""

    def __init__(self, *, config: Wav2Vec2Config, name: str, salt: int, dtype: Dtype) -> None:
        """Makes the layer; `salt` names its random numbers (four in a row are used)."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._config = config
        self._salt = salt
        size, epsilon, stddev = config.hidden_size, config.layer_norm_epsilon, config.initializer_range
        self.attention = SelfAttention(config=config, name=f"{name}/attention", salt=salt, dtype=dtype)
        self.attention_norm = LayerNorm(size=size, epsilon=epsilon, name=f"{name}/attention_norm")
        self.intermediate = Projection(
            input_size=size,
            output_size=config.intermediate_size,
            name=f"{name}/intermediate",
            dtype=dtype,
            stddev=stddev,
        )
        self.output_projection = Projection(
            input_size=config.intermediate_size, output_size=size, name=f"{name}/output", dtype=dtype, stddev=stddev
        )
        self.final_norm = LayerNorm(size=size, epsilon=epsilon, name=f"{name}/final_norm")

    def call(self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]."""
        as_region = random is not None and self._config.uses_regions
        if self._config.stable_layer_norm:
            attended = self.attention(self.attention_norm(x, as_region=as_region), key_bias, random)
            x = self._add(attended, x, random, salt=self._salt + 1)
            return self._add(self._feed_forward(self.final_norm(x, as_region=as_region), random), x, random,
                             salt=self._salt + 3)  # fmt: skip
        x = self._add(self.attention(x, key_bias, random), x, random, salt=self._salt + 1)
        x = self.attention_norm(x, as_region=as_region)
        x = self._add(self._feed_forward(x, random), x, random, salt=self._salt + 3)
        return self.final_norm(x, as_region=as_region)

    def _add(self, x: tf.Tensor, residual: tf.Tensor, random: UpdateRandom | None, *, salt: int) -> tf.Tensor:
        """Adds a block's output, under dropout, to what went into it."""
        rate = self._config.hidden_dropout
        if random is None or not rate or not self._config.uses_regions:
            return residual + dropout(x, rate, random, salt=salt)
        return fused.add_dropped(x, residual, rate=rate, keys=random.vector_keys(tf.shape(x), salt=salt))

    def _feed_forward(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """The block of two projections; the second one's dropout is the caller's."""
        rate = self._config.activation_dropout
        if random is None:
            # Inference: the product, the bias and the GELU become one kernel.
            return self.output_projection(self.intermediate(x, activation=gelu))
        hidden = self.intermediate(x)
        if self._config.uses_regions:
            keys = random.vector_keys(tf.shape(hidden), salt=self._salt + 2) if rate else None
            hidden = fused.gelu(hidden, rate=rate, keys=keys)
        else:
            hidden = dropout(gelu(hidden), rate, random, salt=self._salt + 2)
        return self.output_projection(hidden)


class Encoder(tf_keras.layers.Layer):
    """Position embedding, then the transformer layers."""

    def __init__(self, *, config: Wav2Vec2Config, salt: int, dtype: Dtype) -> None:
        """Makes the layers; random numbers use salts from `salt` upwards."""
        super().__init__(name="encoder", dtype=dtype)
        self._config = config
        self._salt = salt
        self.positional_convolution = PositionalConvolution(config=config, dtype=dtype)
        self.norm = LayerNorm(size=config.hidden_size, epsilon=config.layer_norm_epsilon, name="encoder/norm")
        self.transformer_layers = [
            TransformerLayer(config=config, name=f"encoder/layers/{i}", salt=salt + 1 + 5 * i, dtype=dtype)
            for i in range(config.num_layers)
        ]

    def call(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> list[tf.Tensor]:
        """Runs the layers.

        Args:
            x: Projected features [B, F, D].
            lengths: Valid frames of each row, int32 [B].
            random: The update's random numbers; None when not training.

        Returns:
            num_layers + 1 tensors [B, F, D]: the input of the first layer, then each layer's output, the last one after
            the final norm of a pre-norm model. Frames at and past a row's length hold nothing of use.
        """
        config = self._config
        valid = sequence_mask(lengths, tf.shape(x)[1], x.dtype)[:, :, tf.newaxis]
        key_bias = (1.0 - sequence_mask(lengths, tf.shape(x)[1], tf.float32))[:, tf.newaxis, tf.newaxis, :]
        key_bias *= _MASKED_LOGIT
        # The position embedding looks 64 frames ahead: padding must be zero there, as the edge of the row is.
        x *= valid
        as_region = random is not None and config.uses_regions
        x += self.positional_convolution(x, as_region=as_region)
        if not config.stable_layer_norm:
            x = self.norm(x, as_region=as_region)
        x = dropout(x, config.hidden_dropout, random, salt=self._salt)
        hidden_states = [x]
        for i, layer in enumerate(self.transformer_layers):
            x = self._maybe_skip(layer, x, key_bias, random, salt=self._salt + 5 + 5 * i)
            hidden_states.append(x)
        if config.stable_layer_norm:
            hidden_states[-1] = self.norm(hidden_states[-1], as_region=as_region)
        return hidden_states

    def _maybe_skip(
        self, layer: TransformerLayer, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, *, salt: int
    ) -> tf.Tensor:
        """Layer drop (Fan et al., https://arxiv.org/abs/1909.11556), one draw per layer for the whole update.

        One draw for all rows: the layer's arithmetic is really skipped, and the result still does not depend on
        replicas or accumulation.
        """

        if random is None:
            return layer(x, key_bias, random)
        rate = self._config.layer_drop

        def run(x: tf.Tensor) -> tf.Tensor:
            if rate == 0.0:
                return layer(x, key_bias, random)
            keep = random.uniform(salt=salt) >= rate
            result = tf.cond(keep, lambda: layer(x, key_bias, random), lambda: tf.identity(x))
            result.set_shape(x.shape)
            return result

        # The draw is inside: a custom gradient, as recomputation is, cannot be differentiated in a branch of tf.cond.
        return tf.recompute_grad(run)(x) if self._config.recompute else run(x)
