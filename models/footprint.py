"""What a model takes before it is built: its frames, its parameters, and an estimate of its memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.build import build_model
from models.config import Wav2Vec2Config, preset

# Peak memory of training runs on a CPU, measured with benchmarks/memory.py, sets these (docs/results/0024).
_PROGRAM_BYTES = 900 * 2**20  # Python, TensorFlow and its thread pools, input pipeline
_WIDE_PER_LAYER = 16.0  # activations kept of a transformer layer, in hidden vectors of a frame
_INNER_PER_LAYER = 3.0  # the same, in vectors of the feed-forward block
_SCORES_PER_LAYER = 3.0  # the same, in attention matrices
_MAPS_PER_CONVOLUTION = 3.0  # activations kept of a convolution, in its feature map
# Bytes of an activation. In half precision a CPU keeps float32 copies of most: it measured hardly less than float32.
_ACTIVATION_BYTES = {"float32": 4.0, "mixed_bfloat16": 3.5, "mixed_float16": 3.5}


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Frames and memory of a model that need not exist.

    Attributes:
        config: Architecture; None for a SavedModel, whose inside is unknown.
        model: The SavedModel, which is loaded to ask for its frames; None else.
        precision: As `Wav2Vec2ForCTC`.
        freeze_feature_encoder: Leaves the convolutions untrained.
        keep_average: Training keeps averaged weights beside the raw ones.
        keep_copy: Training goes on while a checkpoint is written from a copy.
    """

    config: Wav2Vec2Config | None
    model: Any
    precision: str
    freeze_feature_encoder: bool
    keep_average: bool = False
    keep_copy: bool = False

    def num_frames(self, num_samples: np.ndarray) -> np.ndarray:
        """Frames int64 [N] that rows of so many samples, integers [N], become."""
        if self.config is None:
            return np.asarray(self.model.output_lengths(np.asarray(num_samples, dtype=np.int32)), dtype=np.int64)
        lengths = np.asarray(num_samples, dtype=np.int64)
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            lengths = np.maximum((lengths - kernel) // stride + 1, 0)
        return lengths

    def memory_bytes(self, num_rows: int, num_samples: int, training: bool) -> int | None:
        """Estimates the peak memory of one process, in bytes; None for a SavedModel.

        Args:
            num_rows: Rows of a microbatch.
            num_samples: Of each.
            training: With gradients, optimizer (two moments) and activations kept; else one forward pass.
        """
        config = self.config
        if config is None:
            return None
        is_half = self.precision != "float32"
        size = _ACTIVATION_BYTES[self.precision]
        maps, encoder = self._feature_maps(num_rows, num_samples)
        total = count_parameters(config)
        trained = total - encoder if self.freeze_feature_encoder else total
        frames = int(self.num_frames(np.array([num_samples]))[0])
        layer = num_rows * frames * (
            _WIDE_PER_LAYER * config.hidden_size
            + _INNER_PER_LAYER * config.intermediate_size
            + _SCORES_PER_LAYER * config.num_heads * frames
        )
        # float32 weights, their copies in half precision.
        fixed = _PROGRAM_BYTES + 4 * total + (2 * total if is_half else 0)
        if not training:
            return int(fixed + size * (_MAPS_PER_CONVOLUTION * max(maps) + layer))
        # Two moments, the gradient of this microbatch and the sum over microbatches.
        fixed += (20 if self.keep_average else 16) * trained
        if self.keep_copy:  # of weights, moments and averages
            fixed += 4 * total + (12 if self.keep_average else 8) * trained
        kept = max(maps) if self.freeze_feature_encoder else sum(maps)
        return int(fixed + size * (_MAPS_PER_CONVOLUTION * kept + config.num_layers * layer))

    def _feature_maps(self, num_rows: int, num_samples: int) -> tuple[list[int], int]:
        """Elements of each convolution's output, and parameters of them all."""
        assert self.config is not None
        maps, length = [], num_samples
        for kernel, stride, width in zip(
            self.config.conv_kernel, self.config.conv_stride, self.config.conv_dim, strict=True
        ):
            length = max(0, (length - kernel) // stride + 1)
            maps.append(num_rows * length * width)
        return maps, _count_convolutions(self.config)


def measure_model(
    *,
    source: str,
    preset_name: str,
    architecture: Mapping[str, Any] | None = None,
    hub_handle: str,
    vocab_size: int,
    precision: str,
    freeze_feature_encoder: bool,
    keep_average: bool = False,
    keep_copy: bool = False,
) -> Footprint:
    """Returns the footprint of a config's model (the arguments are those of `build_model` and `Footprint`).

    Only a SavedModel is loaded for it.

    Raises:
        ValueError: A name is unknown, or there is no such SavedModel.
    """
    if source == "native":
        config = (
            Wav2Vec2Config.from_dict({**architecture, "vocab_size": vocab_size})
            if architecture
            else preset(preset_name, vocab_size=vocab_size)
        )
        return Footprint(config, None, precision, freeze_feature_encoder, keep_average, keep_copy)
    model = build_model(
        source=source, preset=preset_name, hub_handle=hub_handle, vocab_size=vocab_size, precision=precision
    )
    return Footprint(None, model, precision, freeze_feature_encoder, keep_average, keep_copy)


def count_parameters(config: Wav2Vec2Config) -> int:
    """Parameters of the native model with its head."""
    d, inner = config.hidden_size, config.intermediate_size
    features = config.conv_dim[-1]
    projection = (2 * features if config.feature_projection_norm else 0) + features * d + d
    positions = config.pos_conv_kernel * (d // config.pos_conv_groups) * d + config.pos_conv_kernel + d
    layer = 4 * (d * d + d) + 2 * d * inner + inner + d + 4 * d
    ends = 2 * d + d  # the norm before or after the layers, the vector of masked frames
    head = d * config.vocab_size + config.vocab_size
    return _count_convolutions(config) + projection + positions + config.num_layers * layer + ends + head


def _count_convolutions(config: Wav2Vec2Config) -> int:
    total, width_before = 0, 1
    for i, (kernel, width) in enumerate(zip(config.conv_kernel, config.conv_dim, strict=True)):
        has_norm = config.feature_norm == "layer" or i == 0
        total += kernel * width_before * width + (width if config.conv_bias else 0) + (2 * width if has_norm else 0)
        width_before = width
    return total
