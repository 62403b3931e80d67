"""Bottleneck adapters: small blocks that train inside the layers of a frozen network."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from models.ops.keyed_random import UpdateRandom
from models.ops.operations import Operations
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Dtype, Projection

_INITIAL_STDDEV = 1e-2


class Bottleneck(tf_keras.layers.Layer):
    """Computes x + up(GELU(down(x))) of a block's output (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751).

    The second projection starts at zero, so training starts from the frozen network.
    """

    def __init__(self, *, config: Wav2Vec2Config, name: str, operations: Operations, dtype: Dtype) -> None:
        """Makes the projections [D, bottleneck_size] and [bottleneck_size, D]; `name` prefixes their variables'."""
        super().__init__(name=name.replace("/", "_"), dtype=dtype)
        self._operations = operations
        size, inner = config.hidden_size, config.bottleneck_size
        self.down = Projection(
            input_size=size,
            output_size=inner,
            name=f"{name}/down",
            dtype=dtype,
            stddev=_INITIAL_STDDEV,
            operations=operations,
        )
        self.up = Projection(
            input_size=inner,
            output_size=size,
            name=f"{name}/up",
            dtype=dtype,
            initializer="zeros",
            operations=operations,
        )

    def call(self, x: tf.Tensor, random: UpdateRandom | None) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, D]; `random` is None in inference."""
        return x + self.up(self._operations.gelu(self.down(x), random))


def bottleneck(config: Wav2Vec2Config, *, name: str, operations: Operations, dtype: Dtype) -> Bottleneck | None:
    """Returns an adapter, None if the config has none; arguments as `Bottleneck`."""
    if not config.bottleneck_size:
        return None
    return Bottleneck(config=config, name=name, operations=operations, dtype=dtype)
