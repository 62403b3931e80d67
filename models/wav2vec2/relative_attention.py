"""Self-attention whose queries and keys know their positions: relative, rotary or learned for each distance."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, Projection, adapted_projection
from models.wav2vec2.low_rank import STREAM_LORA

_LONGEST_WAVE = 10_000.0  # of the sinusoids of relative positions


def sinusoids(num_frames: tf.Tensor, size: int) -> tf.Tensor:
    """Returns float32 [2 F, D], the sinusoids of the distances F - 1 down to -F from key to query.

    Sines and cosines alternate (Transformer-XL, https://arxiv.org/abs/1901.02860, appendix B).
    """
    wavelengths = np.exp(np.arange(0, size, 2, dtype=np.float32) * np.float32(-np.log(_LONGEST_WAVE) / size))
    distance = tf.cast(tf.range(num_frames - 1, -num_frames - 1, -1), tf.float32)
    angle = distance[:, tf.newaxis] * wavelengths
    return tf.reshape(tf.stack([tf.sin(angle), tf.cos(angle)], axis=-1), [2 * num_frames, size])


def rotary_frequencies(config: Wav2Vec2Config) -> np.ndarray:
    """Returns the frequencies of the rotations of a head, float32 [D / H / 2]."""
    size = config.hidden_size // config.num_heads
    exponent = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return (np.float32(1.0) / np.float32(config.rotary_base) ** exponent).astype(np.float32)


class SharedPositions(tf_keras.layers.Layer):
    """Computes what all layers share of `Wav2Vec2Config.attention_positions`, once for each batch."""

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Computes the frequencies of rotary positions, float32 [D / H / 2]; those in a file are never trained."""
        super().__init__(name="positions", dtype=dtype)
        self._kind = config.attention_positions
        self._size = config.hidden_size
        self.frequencies = rotary_frequencies(config)
        if config.has_rotary_frequencies:
            self.frequencies = self.add_weight(
                name="encoder/positions/frequencies",
                shape=(config.hidden_size // config.num_heads // 2,),
                initializer=tf_keras.initializers.Constant(self.frequencies),
                trainable=False,
                experimental_autocast=False,
            )

    def call(self, num_frames: tf.Tensor) -> tf.Tensor | None:
        """Returns sinusoids [2 F, D], or cosines and sines [2, F, 1, D / H] of rotary positions; None for others."""
        if self._kind == "relative":
            return tf.cast(sinusoids(num_frames, self._size), self.compute_dtype)
        if self._kind == "rotary":
            angle = tf.cast(tf.range(num_frames), tf.float32)[:, tf.newaxis] * self.frequencies
            angle = tf.concat([angle, angle], axis=-1)[:, tf.newaxis, :]
            return tf.cast(tf.stack([tf.cos(angle), tf.sin(angle)]), self.compute_dtype)
        return None


class RelativeAttention(tf_keras.layers.Layer):
    """Multi-head self-attention with the positions of `Wav2Vec2Config.attention_positions`.

    - "relative": a learned projection of sinusoids of the distance, and two learned biases of the queries
      (Transformer-XL, https://arxiv.org/abs/1901.02860, section 3.3).
    - "rotary": the input of queries and keys is rotated (https://arxiv.org/abs/2104.09864). As in the published models
      this comes before their projection, not after it.
    - "relative_key": a learned vector for each clipped distance, which queries meet like a key
      (Shaw et al., https://arxiv.org/abs/1803.02155).
    """

    def __init__(
        self,
        *,
        config: Wav2Vec2Config,
        size: int,
        positions: str,
        operations: Operations,
        name: str,
        stream: int,
        dtype: Dtype,
        has_low_rank: bool = False,
    ) -> None:
        """Makes the projections and the variables of the positions.

        Args:
            config: Architecture.
            size: Width of input and output.
            positions: One of the values of `Wav2Vec2Config.attention_positions`.
            operations: Kernels to run, plain or fused.
            name: Prefix of the variables' names.
            stream: Id of the random numbers of the dropout of probabilities; LoRA's dropout takes three from it.
            dtype: Keras policy.
            has_low_rank: Whether the projections have LoRA's updates if the config has them.
        """
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._num_heads, self._head_size = config.num_heads, size // config.num_heads
        self._positions, self._left = positions, config.relative_key_left
        self._dropout, self._stream = config.attention_dropout, stream
        self._operations = operations
        initializer = tf_keras.initializers.TruncatedNormal(stddev=config.initializer_range)

        def projection(part: str, *modules: str, number: int = 0, use_bias: bool = True) -> Projection:
            targets = [f"linear_{module}" for module in modules] if has_low_rank else []
            return adapted_projection(
                config, *targets, input_size=size, output_size=len(modules) * size, name=f"{name}/{part}",
                stream=STREAM_LORA + stream + number, operations=operations, dtype=dtype, use_bias=use_bias,
            )  # fmt: skip

        if positions == "rotary":
            self.query_key = projection("qk", "q", "k")
            self.value = projection("value", "v", number=1)
        else:
            self.qkv = projection("qkv", "q", "k", "v")
        if positions == "relative":
            self.position = projection("position", "pos", use_bias=False)
            self.content_bias, self.position_bias = (
                self.add_weight(
                    name=f"{name}/{part}_bias", shape=(self._head_size, self._num_heads), initializer="glorot_uniform"
                )
                for part in ("content", "position")
            )
        elif positions == "relative_key":
            num_distances = config.relative_key_left + config.relative_key_right + 1
            self.distances = self.add_weight(
                name=f"{name}/distances", shape=(self._head_size, num_distances), initializer=initializer
            )
        self.out = projection("out", "out", number=2)

    def call(
        self, x: tf.Tensor, key_bias: tf.Tensor, random: UpdateRandom | None, positions: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D].

        Args:
            x: [B, F, D].
            key_bias: float32 [B, 1, 1, F], masks padded keys.
            random: Random numbers of the update; None in inference.
            positions: What `SharedPositions` computed.
        """
        query, key, value = self._project(x, positions, random)
        query *= tf.cast(self._head_size**-0.5, query.dtype)
        query, key, bias = self._bias(query, key, positions, random)
        context = self._operations.attention(
            query, key, value, key_bias, random, rate=self._dropout, stream=self._stream, pair_bias=bias
        )
        shape = tf.shape(x)
        context = tf.transpose(context, [0, 2, 1, 3])  # [B, F, H, D / H]
        return self.out(tf.reshape(context, [shape[0], shape[1], self._num_heads * self._head_size]), random)

    def _project(self, x: tf.Tensor, positions: tf.Tensor | None, random: UpdateRandom | None) -> list[tf.Tensor]:
        """Returns query, key and value [B, H, F, D / H]."""
        if self._positions != "rotary":
            return self._heads(self.qkv(x, random), 3)
        shape = tf.shape(x)
        heads = tf.reshape(x, [shape[0], shape[1], self._num_heads, self._head_size])
        first, second = tf.split(heads, 2, axis=-1)
        cosine, sine = tf.unstack(tf.cast(positions, x.dtype))
        rotated = heads * cosine + tf.concat([-second, first], axis=-1) * sine
        rotated = tf.reshape(rotated, [shape[0], shape[1], self._num_heads * self._head_size])
        return self._heads(self.query_key(rotated, random), 2) + self._heads(self.value(x, random), 1)

    def _heads(self, x: tf.Tensor, count: int) -> list[tf.Tensor]:
        """Splits [B, F, count * D] into `count` tensors [B, H, F, D / H]."""
        shape = tf.shape(x)
        x = tf.reshape(x, [shape[0], shape[1], count, self._num_heads, self._head_size])
        return tf.unstack(tf.transpose(x, [2, 0, 3, 1, 4]), axis=0)

    def _bias(
        self, query: tf.Tensor, key: tf.Tensor, positions: tf.Tensor | None, random: UpdateRandom | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Returns the query and the key that meet, and the bias of their logits [B, H, F, F] or None."""
        if self._positions == "relative_key":
            distances = tf.cast(self.distances, query.dtype)
            return self._operations.add_distances(query, key, distances, random, left=self._left)
        if self._positions != "relative":
            return query, key, None
        scale = tf.cast(self._head_size**-0.5, query.dtype)

        def as_query(bias: tf.Variable) -> tf.Tensor:
            return tf.transpose(tf.cast(bias, query.dtype) * scale)[:, tf.newaxis, :]  # [H, 1, D / H]

        # Without LoRA's dropout, whose numbers belong to rows: all rows share the distances.
        keys = self.position(tf.cast(positions, query.dtype))
        keys = tf.transpose(tf.reshape(keys, [-1, self._num_heads, self._head_size]), [1, 2, 0])  # [H, D / H, 2 F]
        scores = tf.matmul(query + as_query(self.position_bias), keys)
        return query + as_query(self.content_bias), key, self._operations.skew(scores, random)
