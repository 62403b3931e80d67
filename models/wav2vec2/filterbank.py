"""Initializes the first convolution with a Gabor filterbank, for models that train from random weights."""

from __future__ import annotations

import numpy as np

_SAMPLE_RATE = 16_000
_LOWEST_HZ, _HIGHEST_HZ = 80.0, 7_400.0
# Four phases a quarter turn apart: their half-wave rectified sum is close to the envelope at any phase of the signal.
_NUM_PHASES = 4


def gabor_kernel(kernel_size: int, num_channels: int) -> np.ndarray:
    """Returns band-pass filters whose center frequencies are evenly spaced on the mel scale.

    Each filter is a sinusoid under a Gaussian that is as wide in frequency as the distance to its neighbors, and no
    longer than the kernel, after Zeghidour et al., "Learning Filterbanks from Raw Speech for Phone Recognition"
    (https://arxiv.org/abs/1711.01161). Training updates the filters like any other weights.

    Args:
        kernel_size: Width in samples at 16 kHz.
        num_channels: Number of filters, a multiple of 4 because each center comes in four phases.

    Returns:
        float32 [kernel_size, 1, num_channels]; each filter has norm sqrt(2), as He initialization gives it.

    Raises:
        ValueError: If num_channels is not a positive multiple of 4.
    """
    if num_channels < _NUM_PHASES or num_channels % _NUM_PHASES:
        raise ValueError(f"a Gabor filterbank needs a multiple of {_NUM_PHASES} channels, got {num_channels}")
    num_centers = num_channels // _NUM_PHASES
    mels = np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), num_centers + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    time_secs = (np.arange(kernel_size) - (kernel_size - 1) / 2) / _SAMPLE_RATE
    kernel = np.zeros((kernel_size, num_channels))
    for i in range(num_centers):
        width_hz = (edges[i + 2] - edges[i]) / 4
        width_secs = min(1.0 / (2 * np.pi * width_hz), kernel_size / _SAMPLE_RATE / 5)
        envelope = np.exp(-0.5 * (time_secs / width_secs) ** 2)
        for phase in range(_NUM_PHASES):
            angle = 2 * np.pi * (edges[i + 1] * time_secs + phase / _NUM_PHASES)
            kernel[:, i * _NUM_PHASES + phase] = envelope * np.cos(angle)
    kernel *= np.sqrt(2.0) / np.linalg.norm(kernel, axis=0)
    return kernel[:, np.newaxis, :].astype(np.float32)


def _mel(frequency_hz: float) -> float:
    """Converts to the mel scale of O'Shaughnessy (1987)."""
    return 2595.0 * np.log10(1.0 + frequency_hz / 700.0)
