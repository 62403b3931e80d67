"""Counts the floating-point operations of a model."""

from __future__ import annotations

from models.memory_estimate import layer_flops
from models.wav2vec2.config import Wav2Vec2Config


def feature_encoder_flops(config: Wav2Vec2Config, num_samples: int) -> float:
    """Returns the operations of the convolutions over one row; a multiplication and an addition count as two."""
    total, channels, length = 0.0, 1, num_samples
    if config.front_end == "log_mel":
        return 0.0
    for size, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = max(0, (length - kernel) // stride + 1)
        total += 2.0 * length * kernel * channels * size
        channels = size
    return total


def context_flops(config: Wav2Vec2Config, num_samples: int) -> float:
    """Returns the operations of everything after the convolutions over one row, head included."""
    frames, size = config.num_frames(num_samples), config.hidden_size
    ends = (config.feature_size + config.vocab_size) * size
    position = config.pos_conv_depth * config.pos_conv_kernel * size * size // config.pos_conv_groups
    if config.layer_kind == "conformer":
        position = 0
    return 2.0 * frames * (ends + position) + config.num_layers * layer_flops(config, frames)


def inference_flops(config: Wav2Vec2Config, num_samples: int) -> float:
    """Returns the operations of the forward pass of one row."""
    return feature_encoder_flops(config, num_samples) + context_flops(config, num_samples)


def training_flops(config: Wav2Vec2Config, num_samples: int, *, freeze_feature_encoder: bool = True) -> float:
    """Returns the operations of the forward and backward pass of one row, without recomputation.

    A backward pass costs two products for each of the forward pass; a frozen feature encoder has none.
    """
    encoder = feature_encoder_flops(config, num_samples)
    return encoder * (1.0 if freeze_feature_encoder else 3.0) + 3.0 * context_flops(config, num_samples)
