"""Gated relative position bias: attention logits that depend on the distance between frames (WavLM)."""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import Operations
from models.ops.position_bias import Positions
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype

_NUM_GATES = 2
_GATE_WIDTH = 4  # outputs of the gate's projection that are summed into one number


@functools.cache
def distance_buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance, int32 [max_distance + 1]; larger distances share the last one.

    Half of `num_buckets` serve one direction. The nearer half of those hold one distance each, and the others grow with
    the logarithm, as in T5 (Raffel et al., https://arxiv.org/abs/1910.10683, section 2.1).
    """
    buckets = num_buckets // 2
    exact = buckets // 2
    distances = np.arange(max_distance + 1, dtype=np.float32)
    # float32, step by step as in the reference: a distance on the edge of two buckets must round to the same side.
    steps = np.log(np.maximum(distances, 1) / np.float32(exact)) / np.float32(math.log(max_distance / exact))
    far = (np.float32(exact) + steps * np.float32(buckets - exact)).astype(np.int32)
    return np.where(distances < exact, distances.astype(np.int32), np.minimum(far, buckets - 1))


class RelativePositionBias(tf_keras.layers.Layer):
    """Looks up one number per head and distance; all transformer layers share it."""

    def __init__(self, *, config: Wav2Vec2Config, operations: Operations, dtype: Dtype) -> None:
        """Makes the table [H, relative_position_buckets]; `operations` are those of the layers."""
        super().__init__(name="position_bias", dtype=dtype)
        self._operations = operations
        self._num_buckets = config.relative_position_buckets
        self._max_distance = config.relative_position_max_distance
        # float32 under every policy: the layers' gradients are summed in it.
        self.table = self.add_weight(
            name="encoder/position_bias/table",
            shape=(config.num_heads, config.relative_position_buckets),
            initializer=tf_keras.initializers.RandomNormal(stddev=config.initializer_range),
            experimental_autocast=False,
        )

    def call(self, num_frames: tf.Tensor, random: UpdateRandom | None) -> Positions:
        """Returns the bias between all pairs of `num_frames` frames; `random` is None in inference."""
        distances = tf.range(1 - num_frames, num_frames)  # of the key from the query
        known = tf.constant(distance_buckets(self._num_buckets, self._max_distance))
        buckets = tf.gather(known, tf.minimum(tf.abs(distances), self._max_distance))
        buckets += tf.where(distances > 0, self._num_buckets // 2, 0)
        by_distance = tf.gather(self.table, buckets, axis=1)
        return self._operations.positions(by_distance, random, dtype=tf.as_dtype(self.compute_dtype))


class PositionGate(tf_keras.layers.Layer):
    """Scales the position bias of a layer by a number for each head and query, which its input decides.

    WavLM (Chen et al., https://arxiv.org/abs/2110.13900, section 3.1), after a gated recurrent unit.
    """

    def __init__(self, *, config: Wav2Vec2Config, name: str, dtype: Dtype) -> None:
        """Makes kernel [D / H, 8], bias [8] and scale [1, 1, H, 1]."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._num_heads = config.num_heads
        self._head_size = config.hidden_size // config.num_heads
        width = _NUM_GATES * _GATE_WIDTH
        self.kernel = self.add_weight(
            name=f"{name}/kernel",
            shape=(self._head_size, width),
            initializer=tf_keras.initializers.TruncatedNormal(stddev=config.initializer_range),
            experimental_autocast=False,
        )
        self.bias = self.add_weight(
            name=f"{name}/bias", shape=(width,), initializer="zeros", experimental_autocast=False
        )
        self.scale = self.add_weight(
            name=f"{name}/scale", shape=(1, 1, self._num_heads, 1), initializer="ones", experimental_autocast=False
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps the input of attention [B, F, D] to float32 [B, H, F]."""
        shape = tf.shape(x)
        # The sum over the four outputs of each gate is taken of the weights, which are far smaller.
        kernel = tf.reduce_sum(tf.reshape(self.kernel, [self._head_size, _NUM_GATES, _GATE_WIDTH]), axis=-1)
        bias = tf.reduce_sum(tf.reshape(self.bias, [_NUM_GATES, _GATE_WIDTH]), axis=-1)
        heads = tf.matmul(tf.reshape(x, [-1, self._head_size]), tf.cast(kernel, x.dtype))
        gates = tf.sigmoid(tf.cast(heads, tf.float32) + bias)
        gates = tf.reshape(gates, [shape[0], shape[1], self._num_heads, _NUM_GATES])
        update, reset = tf.unstack(tf.transpose(gates, [3, 0, 2, 1]), axis=0)  # [B, H, F]
        scale = tf.reshape(self.scale, [1, self._num_heads, 1])
        return update * (reset * scale - 1.0) + 2.0
