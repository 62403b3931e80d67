"""Attention adapters: small blocks at the end of each layer that make one network speak many languages (MMS)."""

from __future__ import annotations

import functools

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, LayerNorm, Projection

# Added to variances. The layer_norm_eps of published configs applies elsewhere only.
_EPSILON = 1e-5


class AttentionAdapter(tf_keras.layers.Layer):
    """Computes x + up(ReLU(down(norm(x)))).

    MMS (Pratap et al. 2023, https://arxiv.org/abs/2305.13516, section 5.1.3) trains one for each language and leaves
    the rest of the network as it is.
    """

    def __init__(self, *, config: Wav2Vec2Config, name: str, operations: Operations, dtype: Dtype) -> None:
        """Makes a norm [D] and the projections [D, attention_adapter_size] and back; `name` prefixes the variables'."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        size, inner, stddev = config.hidden_size, config.attention_adapter_size, config.initializer_range
        self.norm = LayerNorm(size=size, epsilon=_EPSILON, name=name, operations=operations)
        projection = functools.partial(Projection, dtype=dtype, stddev=stddev, operations=operations)
        self.down = projection(input_size=size, output_size=inner, name=f"{name}/down")
        self.up = projection(input_size=inner, output_size=size, name=f"{name}/up")

    def call(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]; `random` is None in inference."""
        return x + self.up(self.down(self.norm(x, random), activation=tf.nn.relu))
