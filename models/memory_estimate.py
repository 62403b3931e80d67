"""What a model takes before it is built: its frames, its parameters, and an estimate of its memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.build import build_model
from models.wav2vec2.config import Wav2Vec2Config, resolve

# Feature maps kept of a convolution.
_MAPS_PER_CONVOLUTION = 3.0
# Bytes of a number in those of the feature encoder, and in layers without regions: in half precision a CPU keeps
# float32 copies of most of them, and measured hardly less than float32.
_PLAIN_BYTES = {"float32": 4.0, "mixed_bfloat16": 3.5, "mixed_float16": 3.5}


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What training keeps, measured on a CPU with benchmarks/memory.py and clip_memory.py (docs/results/0024).

    Attributes:
        program: Bytes of Python, TensorFlow and its thread pools, the input pipeline, XLA's compiler.
        wide: For the backward pass of a layer, in hidden vectors of a frame.
        inner: The same, in vectors of the feed-forward block.
        scores: The same, in attention matrices.
        scores_at_work: While one layer computes, beside what the others keep, in attention matrices.
        num_bytes: Of each number.
    """

    program: int
    wide: float
    inner: float
    scores: float
    scores_at_work: float
    num_bytes: float


_PLAIN = {
    precision: _Kept(900 * 2**20, wide=16, inner=3, scores=3, scores_at_work=0, num_bytes=num_bytes)
    for precision, num_bytes in _PLAIN_BYTES.items()
}
_REGIONS = {
    precision: _Kept(1350 * 2**20, wide=14, inner=3, scores=1, scores_at_work=at_work, num_bytes=num_bytes)
    for precision, at_work, num_bytes in (
        ("float32", 5.5, 4),
        ("mixed_bfloat16", 3.5, 2),
        ("mixed_float16", 3.5, 2),
    )
}


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
        kept = (_REGIONS if training and config.uses_regions else _PLAIN)[self.precision]
        maps, encoder = self._feature_maps(num_rows, num_samples)
        map_bytes = _MAPS_PER_CONVOLUTION * _PLAIN_BYTES[self.precision]
        total = count_parameters(config)
        trained = total - encoder if self.freeze_feature_encoder else total
        frames = num_rows * int(self.num_frames(np.array([num_samples]))[0])
        # One attention matrix, all heads of it.
        scores = kept.num_bytes * frames * config.num_heads * (frames // num_rows)
        layer = kept.num_bytes * frames * (kept.wide * config.hidden_size + kept.inner * config.intermediate_size)
        layer += kept.scores * scores
        # float32 weights, their copies in half precision.
        fixed = kept.program + 4 * total + (0 if self.precision == "float32" else 2 * total)
        if not training:
            return int(fixed + map_bytes * max(maps) + layer)
        # Two moments, the gradient of this microbatch and the sum over microbatches.
        fixed += (20 if self.keep_average else 16) * trained
        if self.keep_copy:  # of weights, moments and averages
            fixed += 4 * total + (12 if self.keep_average else 8) * trained
        if config.recompute:  # what goes into each layer, and all of one
            inputs = kept.num_bytes * frames * config.hidden_size
            layers = config.num_layers * inputs + layer
        else:
            layers = config.num_layers * layer
        layers += kept.scores_at_work * scores
        if not self.freeze_feature_encoder:
            return int(fixed + map_bytes * sum(maps) + layers)
        if config.uses_regions:  # frozen convolutions are done with before the layers begin
            return int(fixed + max(map_bytes * max(maps), layers))
        return int(fixed + map_bytes * max(maps) + layers)

    def training_flops(self, num_samples: int) -> float | None:
        """Counts the floating-point operations of training on one row, in matrix products and convolutions.

        Args:
            num_samples: Length of the padded row.

        Returns:
            Two operations for each multiply-add, the backward pass counted twice; None for a SavedModel.
        """
        config = self.config
        if config is None:
            return None
        convolutions, width_before, length = 0.0, 1, num_samples
        for kernel, stride, width in zip(config.conv_kernel, config.conv_stride, config.conv_dim, strict=True):
            length = max(0, (length - kernel) // stride + 1)
            convolutions += 2.0 * kernel * width_before * width * length
            width_before = width
        d = config.hidden_size
        layers = config.num_layers * (
            2.0 * length * (4 * d * d + 2 * d * config.intermediate_size) + 4.0 * length**2 * d
        )
        positions = 2.0 * config.pos_conv_kernel * (d // config.pos_conv_groups) * d * length
        ends = 2.0 * length * d * (width_before + config.vocab_size)
        forward_passes = 4 if config.recompute else 3
        return (
            (1 if self.freeze_feature_encoder else 3) * convolutions + forward_passes * layers + 3 * (positions + ends)
        )

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
    regions: str = "auto",
    recompute: bool = False,
) -> Footprint:
    """Returns the footprint of a config's model (the arguments are those of `build_model` and `Footprint`).

    Only a SavedModel is loaded for it.

    Raises:
        ValueError: A name is unknown, or there is no such SavedModel.
    """
    if source == "native":
        overrides = {"vocab_size": vocab_size, "regions": regions, "recompute": recompute}
        config = resolve(preset_name, architecture or {}, **overrides)
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
