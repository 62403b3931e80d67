"""Counts the floating-point operations of a model."""

from __future__ import annotations

import math

from models.memory_estimate import layer_flops
from models.wav2vec2.config import MEL_BINS, MEL_HOP, MEL_WINDOW, Wav2Vec2Config
from models.wav2vec2.log_mel import FFT_SIZE

_OF_REAL_FOURIER_TRANSFORM = 2.5 * FFT_SIZE * math.log2(FFT_SIZE)


def feature_encoder_flops(config: Wav2Vec2Config, num_samples: int) -> float:
    """Returns the operations of the convolutions, or of the log-mel spectrogram, over one row.

    A multiplication and an addition count as two.
    """
    total, channels, length = 0.0, 1, num_samples
    if config.front_end == "log_mel":
        windows = max(0, (num_samples - MEL_WINDOW) // MEL_HOP + 1)
        return windows * (_OF_REAL_FOURIER_TRANSFORM + 2.0 * (FFT_SIZE // 2 + 1) * MEL_BINS)
    for size, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = max(0, (length - kernel) // stride + 1)
        total += 2.0 * length * kernel * channels * size
        channels = size
    return total


def context_flops(config: Wav2Vec2Config, num_samples: int, *, num_rows: int = 1) -> float:
    """Returns the operations of everything after the features over one row of `num_rows`, head included.

    Length adapters are not counted.
    """
    frames, size = config.num_frames(num_samples), config.hidden_size
    ends = (config.feature_size + config.vocab_size) * size
    position = config.pos_conv_depth * config.pos_conv_kernel * size * size // config.pos_conv_groups
    if config.layer_kind == "conformer":
        position = 0
    return 2.0 * frames * (ends + position) + config.num_layers * layer_flops(config, frames, num_rows=num_rows)


def inference_flops(config: Wav2Vec2Config, num_samples: int, *, num_rows: int = 1) -> float:
    """Returns the operations of the forward pass of one row of a batch of `num_rows`."""
    return feature_encoder_flops(config, num_samples) + context_flops(config, num_samples, num_rows=num_rows)


def training_flops(
    config: Wav2Vec2Config, num_samples: int, *, freeze_feature_encoder: bool = True, num_rows: int = 1
) -> float:
    """Returns the operations of the forward and backward pass of one row of `num_rows`, without recomputation.

    A backward pass costs two products for each of the forward pass; a frozen feature encoder and a spectrogram have
    none.
    """
    encoder = feature_encoder_flops(config, num_samples)
    passes = 1.0 if freeze_feature_encoder or config.front_end == "log_mel" else 3.0
    return encoder * passes + 3.0 * context_flops(config, num_samples, num_rows=num_rows)
