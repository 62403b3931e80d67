"""Estimates the frames, the parameters and the memory of a model before it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.build import build_model
from models.hugging_face.names import is_of_language, name_table, num_parameters, trained_table
from models.ops.gpu_attention.programs import HEAD_SIZE
from models.wav2vec2.config import MEL_HOP, MEL_WINDOW, Wav2Vec2Config, count_frames, resolve

_MOST_ROWS_POWER = 12  # of `largest_batch`, as a power of two
_MAPS_PER_CONVOLUTION = 3.0  # feature maps that training keeps of each convolution
# Bytes per number in the feature encoder and in plain layers. In half precision a CPU keeps float32 copies of most
# tensors, so the measured size is close to float32.
_PLAIN_BYTES = {"float32": 4.0, "mixed_bfloat16": 3.5, "mixed_float16": 3.5}


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Memory that training keeps, measured on a CPU with benchmarks/memory.py and clip_memory.py (docs/results/0124).

    Attributes:
        program: Bytes of Python, TensorFlow and its thread pools, the input pipeline and XLA's compiler.
        wide: Hidden vectors per frame that a layer keeps for its backward pass.
        inner: Vectors of the feed-forward block per frame that a layer keeps for its backward pass.
        scores: Attention matrices that a layer keeps for its backward pass.
        scores_at_work: Additional attention matrices while one layer computes.
        num_bytes: Bytes per number.
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
_FUSED = {
    precision: _Kept(1350 * 2**20, wide=14, inner=3, scores=1, scores_at_work=at_work, num_bytes=num_bytes)
    for precision, at_work, num_bytes in (
        ("float32", 5.5, 4),
        ("mixed_bfloat16", 3.5, 2),
        ("mixed_float16", 3.5, 2),
    )
}
# Where XLA compiles a step as a whole: float32 from its assignment of buffers on a CPU, half precision fitted to an
# H200, where more is kept (docs/results/0179).
_COMPILED = {
    precision: _Kept(1350 * 2**20, wide=wide, inner=inner, scores=0, scores_at_work=at_work, num_bytes=num_bytes)
    for precision, wide, inner, at_work, num_bytes in (
        ("float32", 7, 2, 4, 4),
        ("mixed_bfloat16", 14, 3, 5, 2),
        ("mixed_float16", 14, 3, 5, 2),
    )
}

# The same where attention runs in the kernels of `models.ops.gpu_attention`, which keep no matrix; fitted to an H200
# (docs/results/0180). Beside the tensors there are CUDA's context and libraries.
_WITH_KERNELS = _Kept(640 * 2**20, wide=9.5, inner=2.5, scores=0, scores_at_work=0, num_bytes=2)

# The same for conformer layers (docs/decisions/0022): two feed-forward blocks and a convolution beside attention, and
# score matrices of distances that are as large as those of frames, or twice as large.
_CONFORMER_WIDE, _CONFORMER_INNER = 32, 6
_SCORES_OF_DISTANCES = {"none": 0, "rotary": 0, "relative_key": 4, "relative": 6}
# Float32 numbers for each head and pair of frames, whatever the rows, where attention has a relative position bias: the
# bias itself, its gradient, and the copies that lay its diagonals side by side. Plain operations keep the gradient of
# each layer as well.
_POSITION_MATRICES = 4


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Frames and memory of a model that need not be built.

    Attributes:
        config: Architecture; None for a SavedModel, whose inside is unknown.
        model: SavedModel, loaded to ask for its frames; None for a native model.
        precision: Keras policy of the model.
        freeze_feature_encoder: Whether the convolutions stay untrained.
        keep_average: Whether training keeps averaged weights beside the raw ones.
        keep_copy: Whether training continues while a checkpoint is written from a copy.
        num_views: Number of views of each row in training, which share the convolutions.
        is_compiled_whole: Whether XLA compiles training steps as a whole.
        has_attention_kernels: Whether it does so on a single recent GPU, in updates that are called one by one.
    """

    config: Wav2Vec2Config | None
    model: Any
    precision: str
    freeze_feature_encoder: bool
    keep_average: bool = False
    keep_copy: bool = False
    num_views: int = 1
    is_compiled_whole: bool = False
    has_attention_kernels: bool = False

    @property
    def _runs_attention_kernels(self) -> bool:
        config = self.config
        return (
            self.is_compiled_whole
            and self.has_attention_kernels
            and self.precision != "float32"
            and config is not None
            and config.layer_kind == "transformer"
            and not config.relative_position_buckets
            and config.hidden_size == config.num_heads * HEAD_SIZE
        )

    @property
    def _has_frozen_convolutions(self) -> bool:
        return self.freeze_feature_encoder or (self.config is not None and self.config.is_mostly_frozen)

    def num_frames(self, num_samples: np.ndarray) -> np.ndarray:
        """Returns the frames, int64 [N], of rows of `num_samples` samples, integers [N]."""
        if self.config is None:
            return np.asarray(self.model.output_lengths(np.asarray(num_samples, dtype=np.int32)), dtype=np.int64)
        return count_frames(self.config.frame_steps, np.asarray(num_samples, dtype=np.int64))

    def memory_bytes(self, num_rows: int, num_samples: int, training: bool) -> int | None:
        """Estimates the peak memory of one process in bytes; returns None for a SavedModel.

        Args:
            num_rows: Rows of a microbatch.
            num_samples: Samples of each row.
            training: Whether gradients, the optimizer (two moments) and activations are kept, or one forward pass runs.
        """
        config = self.config
        if config is None:
            return None
        is_compiled, is_fused = training and self.is_compiled_whole, training and config.uses_fused_ops
        by_precision = _COMPILED if is_compiled else _FUSED if is_fused else _PLAIN
        kept = _of_layer_kind(by_precision[self.precision], config, keeps_distances=not (is_compiled or is_fused))
        if training and self._runs_attention_kernels:
            kept = _WITH_KERNELS
        maps = _feature_maps(config, num_rows, num_samples)
        map_bytes = _MAPS_PER_CONVOLUTION * _PLAIN_BYTES[self.precision]
        fixed = kept.program + self._weight_bytes(config, training)
        frames_of_row = _encoder_frames(config, num_samples)
        frames = num_rows * (self.num_views if training else 1) * frames_of_row
        # One attention matrix with all its heads.
        scores = kept.num_bytes * frames * config.num_heads * frames_of_row
        layer = kept.num_bytes * frames * (kept.wide * config.hidden_size + kept.inner * config.intermediate_size)
        layer += kept.scores * scores
        if config.relative_position_buckets:
            matrices = _POSITION_MATRICES + config.num_layers * (training and not is_fused)
            fixed += 4 * matrices * config.num_heads * frames_of_row**2
        if not training:
            return int(fixed + map_bytes * max(maps) + layer)
        if config.gradient_checkpointing:  # the inputs of all layers, and the tensors of one
            inputs = kept.num_bytes * frames * config.hidden_size
            layers = config.num_layers * inputs + layer
        else:
            layers = config.num_layers * layer
        layers += kept.scores_at_work * scores
        if not self._has_frozen_convolutions:
            return int(fixed + map_bytes * sum(maps) + layers)
        if is_compiled or is_fused:  # the tensors of frozen convolutions are freed before the layers start
            return int(fixed + max(map_bytes * max(maps), layers))
        return int(fixed + map_bytes * max(maps) + layers)

    def largest_batch(self, num_samples: int, available_bytes: int, training: bool) -> int | None:
        """Returns the most rows whose predicted memory fits; 0 if not even one does, None for a SavedModel.

        Args:
            num_samples: Samples of each row.
            available_bytes: Memory of the device.
            training: Whether the batch trains, or one forward pass runs.
        """
        if self.config is None:
            return None

        def fits(num_rows: int) -> bool:
            return (self.memory_bytes(num_rows, num_samples, training) or 0) <= available_bytes

        rows = 0
        for step in (2**power for power in range(_MOST_ROWS_POWER, -1, -1)):
            rows += step * fits(rows + step)
        return rows

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
        if config.front_end == "convolutions":
            for kernel, stride, width in zip(config.conv_kernel, config.conv_stride, config.conv_dim, strict=True):
                length = max(0, (length - kernel) // stride + 1)
                convolutions += 2.0 * kernel * width_before * width * length
                width_before = width
        length = _encoder_frames(config, num_samples)
        d = config.hidden_size
        layers = config.num_layers * layer_flops(config, length)
        positions = 2.0 * config.pos_conv_depth * config.pos_conv_kernel * (d // config.pos_conv_groups) * d * length
        positions *= config.layer_kind == "transformer"
        ends = 2.0 * length * d * (config.feature_size + config.vocab_size)
        forward_passes = 4 if config.gradient_checkpointing else 3
        found = (1 if self._has_frozen_convolutions else 3) * convolutions + self.num_views * (
            forward_passes * layers + 3 * (positions + ends)
        )
        if not config.is_mostly_frozen:
            return found
        # No gradient of a frozen kernel, and none at all below the first layer.
        kernels = config.num_layers * 2.0 * length * _weights_of_layer(config)
        return found - self.num_views * (kernels + 2 * positions + 4.0 * length * d * config.feature_size)

    def _weight_bytes(self, config: Wav2Vec2Config, training: bool) -> int:
        """Returns the bytes of weights and, in training, of gradients, moments, averages and the copy to save."""
        total = num_parameters(config)
        trained = total
        if config.train_adapters_only:
            trained = sum(entry.size for entry in name_table(config) if is_of_language(entry.theirs[0]))
        elif config.is_adapted:
            trained = sum(entry.size for entry in trained_table(config))
        elif self.freeze_feature_encoder:
            trained -= sum(entry.size for entry in name_table(config) if entry.ours.startswith("feature_encoder/"))
        num_bytes = (4 if self.precision == "float32" else 6) * total  # float32 weights and their half-precision copies
        if training:
            # Two moments, the gradient of this microbatch and the sum over microbatches.
            num_bytes += (20 if self.keep_average else 16) * trained
        if training and self.keep_copy:  # of weights, moments and averages
            num_bytes += 4 * total + (12 if self.keep_average else 8) * trained
        return num_bytes


_OF_ESTIMATE = [field.name for field in dataclasses.fields(MemoryEstimate) if field.default is not dataclasses.MISSING]


def measure_model(
    *,
    source: str,
    preset: str,
    hub_handle: str,
    vocab_size: int,
    precision: str,
    freeze_feature_encoder: bool,
    architecture: Mapping[str, Any] | None = None,
    **more: Any,
) -> MemoryEstimate:
    """Estimates the model that `models.build.build_model` would build; only a SavedModel is loaded for it.

    Args:
        source: "native" or "hub".
        preset: Architecture of a native model.
        hub_handle: URL or folder of a SavedModel.
        vocab_size: Width of the CTC head.
        precision: Keras policy, one of `PRECISIONS`.
        freeze_feature_encoder: Whether the convolutions stay untrained.
        architecture: Fields of `Wav2Vec2Config` that replace `preset` where it is not a name.
        **more: Attributes of `MemoryEstimate` that have a default, and fields of `Wav2Vec2Config` of a native model.

    Raises:
        ValueError: If a name is unknown, or there is no such SavedModel.
    """
    config, model = None, None
    of_estimate = {name: more.pop(name) for name in _OF_ESTIMATE if name in more}
    if source == "native":
        config = resolve(preset, architecture or {}, vocab_size=vocab_size, **more)
    else:
        model = build_model(
            source=source, preset=preset, hub_handle=hub_handle, vocab_size=vocab_size, precision=precision
        )
    return MemoryEstimate(config, model, precision, freeze_feature_encoder, **of_estimate)


def layer_flops(config: Wav2Vec2Config, num_frames: int, *, num_rows: int = 1) -> float:
    """Returns the operations of the forward pass of one layer over one row; two for each multiply-add.

    Args:
        config: Architecture.
        num_frames: Frames of the row.
        num_rows: Rows of its batch, which share the keys of relative positions.
    """
    size = config.hidden_size
    weights = _weights_of_layer(config, num_rows) + 2 * size * config.attention_adapter_size
    attention = 2 * num_frames * size  # of each frame: attention logits and context
    if config.relative_position_buckets:
        attention += 2 * size  # the two numbers of each head that make the gate
    if config.attention_positions == "relative":
        attention += 2 * num_frames * size  # scores with 2 F distances
    elif config.attention_positions == "relative_key":
        attention += (config.relative_key_left + config.relative_key_right + 1) * size
    return 2.0 * num_frames * (weights + attention)


def _weights_of_layer(config: Wav2Vec2Config, num_rows: int = 1) -> int:
    """Returns the weights that each frame meets in a layer, without those of adapters."""
    size = config.hidden_size
    weights = 4 * size**2 + 2 * size * config.intermediate_size
    if config.layer_kind == "conformer":
        weights += 2 * size * config.intermediate_size + 3 * size**2 + config.depthwise_kernel * size
        if config.attention_positions == "relative":
            weights += 2 * size**2 // num_rows  # makes the keys of 2 F distances, once for all rows
    return weights


def _encoder_frames(config: Wav2Vec2Config, num_samples: int) -> int:
    return int(count_frames(config.encoder_steps, np.asarray(num_samples, np.int64)))


def _of_layer_kind(kept: _Kept, config: Wav2Vec2Config, *, keeps_distances: bool) -> _Kept:
    """Returns what a layer of this architecture keeps, given what one of a transformer keeps.

    Args:
        kept: What a layer of a transformer keeps.
        config: Architecture.
        keeps_distances: Whether the matrices of distances of each layer are kept as well, as by plain operations.
    """
    if config.layer_kind == "transformer":
        return kept
    of_distances = _SCORES_OF_DISTANCES[config.attention_positions]
    return dataclasses.replace(
        kept,
        wide=_CONFORMER_WIDE,
        inner=_CONFORMER_INNER,
        scores=kept.scores + keeps_distances * of_distances,
        scores_at_work=kept.scores_at_work + of_distances,
    )


def _feature_maps(config: Wav2Vec2Config, num_rows: int, num_samples: int) -> list[int]:
    """Returns the number of elements of the output of each convolution, or of the windows of a spectrogram."""
    if config.front_end == "log_mel":
        return [num_rows * max(0, (num_samples - MEL_WINDOW) // MEL_HOP + 1) * MEL_WINDOW]
    maps, length = [], num_samples
    for kernel, stride, width in zip(config.conv_kernel, config.conv_stride, config.conv_dim, strict=True):
        length = max(0, (length - kernel) // stride + 1)
        maps.append(num_rows * length * width)
    return maps
