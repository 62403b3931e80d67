"""LoRA: trains a low-rank update beside a frozen projection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2.config import Wav2Vec2Config

# Stream ids of LoRA's dropout, from the id of a layer's other random numbers.
STREAM_LORA = 1 << 22


class LowRankUpdate(tf_keras.layers.Layer):
    """Computes scale * x A B for some of the parts of a projection (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    B starts at zero, so training starts from the frozen projection. A starts as in PEFT, uniform up to
    1 / sqrt(input_size).
    """

    def __init__(
        self,
        *,
        config: Wav2Vec2Config,
        parts: Sequence[str],
        input_size: int,
        output_size: int,
        name: str,
        stream: int,
        dtype: str | tf_keras.mixed_precision.Policy,
    ) -> None:
        """Makes A [input_size, rank] and B [rank, output_size / len(parts)] of each part that is a target.

        Args:
            config: Architecture, whose lora_* fields are read; one of the parts is among its targets.
            parts: Names of the parts that lie side by side in the output, each as wide.
            input_size: Size of the last axis of the input.
            output_size: Size of the last axis of the output.
            name: Prefix of the variables' names, that of the projection.
            stream: Id of the random numbers of its dropout.
            dtype: Keras policy; under a mixed policy the variables stay float32.
        """
        super().__init__(name=f"{name}/lora".replace("/", "_"), dtype=dtype)
        self._scale = config.lora_alpha / config.lora_rank
        self._rate = config.lora_dropout
        self._stream = stream
        self._output_size = output_size
        size = output_size // len(parts)
        # Columns of the output before each updated part, and after it.
        self._margins = [
            (i * size, output_size - (i + 1) * size) for i, part in enumerate(parts) if part in config.lora_targets
        ]
        targets = [part for part in parts if part in config.lora_targets]
        self.a = [
            self.add_weight(
                name=f"{name}/lora/{part}/a",
                shape=(input_size, config.lora_rank),
                initializer=tf_keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform"),
            )
            for part in targets
        ]
        self.b = [
            self.add_weight(name=f"{name}/lora/{part}/b", shape=(config.lora_rank, size), initializer="zeros")
            for part in targets
        ]

    def call(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps x [B, ..., input_size] to the update of the flat output [N, output_size]; `random` is None in inference.

        Two products for all parts: the first one's output is as narrow as the ranks together.
        """
        x = dropout(x, self._rate, random, stream=self._stream)
        narrow = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.concat([tf.identity(a) for a in self.a], axis=1))
        b = [tf.pad(b, [[0, 0], margins]) for b, margins in zip(self.b, self._margins, strict=True)]
        return tf.matmul(narrow * tf.cast(self._scale, narrow.dtype), tf.concat(b, axis=0))

    def matrix(self) -> np.ndarray:
        """Returns what the update adds to the kernel, float64 [input_size, output_size]; eager."""
        found = np.zeros((self.a[0].shape[0], self._output_size))
        for a, b, (before, after) in zip(self.a, self.b, self._margins, strict=True):
            product = a.numpy().astype(np.float64) @ b.numpy().astype(np.float64)
            found[:, before : self._output_size - after] = self._scale * product
        return found
