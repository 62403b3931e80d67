"""Decodes recordings in parallel and measures level, silence, clipping and a key of the content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data.audio.decoding import SAMPLE_RATE, channels_cancel, to_int16, to_mono
from data.common.errors import InputError
from data.corpus.sources import Source

FRAME_SECS = 0.02
# -60 dB of full scale: 33 steps of 16 bits.
SILENT_PEAK = 1e-3
# A frame is quiet 40 dB below the loudest one, or below the level of silence.
_QUIET_RATIO = 0.01
MIN_ACTIVE_RATIO = 0.1
# Ratio of samples that repeat their neighbor at the recording's peak. Clean LibriSpeech has at most 0.00005; quiet
# recordings of fsdd, whose steps are as coarse as those of 8 bits, 0.002; speech that is amplified 6 dB beyond the
# limit about 0.01.
CLIPPED_RATIO = 0.005
_CHUNK = 1024  # recordings handed to the threads at a time


class AudioMeasurement(NamedTuple):
    """Measurements of one recording.

    Attributes:
        peak: Largest magnitude after subtracting the mean; 1 is full scale.
        level_db: Root mean square in dB of full scale.
        active_ratio: Ratio of 20 ms frames that are not quiet.
        clipped_ratio: Ratio of samples that repeat their neighbor at the peak.
        key: 16 bytes that are equal for recordings with the same 16-bit audio at 16 kHz.
        cancels: True if the channels cancel each other, so that the model gets only one of them.
    """

    peak: float
    level_db: float
    active_ratio: float
    clipped_ratio: float
    key: bytes
    cancels: bool


def measure_recording(channels: np.ndarray, rate: int) -> AudioMeasurement:
    """Measures one recording as the model gets it; clipping is measured before mixing and resampling would hide it.

    Args:
        channels: float32 [T, C], at least one sample.
        rate: Sample rate in Hz.
    """
    mono = to_mono(channels, rate, SAMPLE_RATE)
    centered = mono - mono.mean(dtype=np.float64).astype(np.float32)
    power = np.square(centered)
    peak = float(np.sqrt(power.max()))
    size = max(1, min(int(SAMPLE_RATE * FRAME_SECS), len(power)))
    frames = np.sqrt(power[: len(power) // size * size].reshape(-1, size).mean(axis=1))
    is_active = frames > max(SILENT_PEAK, _QUIET_RATIO * float(frames.max()))
    return AudioMeasurement(
        peak=peak,
        level_db=float(10 * np.log10(power.mean() + 1e-12)),
        active_ratio=float(is_active.mean()),
        clipped_ratio=_clipped_ratio(channels) if peak >= SILENT_PEAK and len(channels) > 1 else 0.0,
        key=hashlib.blake2b(to_int16(mono).tobytes(), digest_size=16).digest(),
        cancels=channels_cancel(channels, rate),
    )


def _clipped_ratio(channels: np.ndarray) -> float:
    highest = 0.999 * max(float(channels.max()), -float(channels.min()))
    num_still = 0
    for channel in range(channels.shape[1]):  # one at a time: there may be 64
        samples = np.ascontiguousarray(channels[:, channel])
        num_still += int(((np.abs(samples[1:]) >= highest) & (samples[1:] == samples[:-1])).sum())
    return num_still / channels[1:].size


@dataclass
class AudioStatistics:
    """Measurements of the decoded recordings of one source.

    Attributes:
        indices: int64 [M], ascending; the decoded utterances, which the arrays below follow.
        peak, level_db, active_ratio, clipped_ratio: float32 [M], NaN if unreadable.
        keys: M keys, b"" if unreadable.
        cancels: bool [M].
        errors: Utterance index -> why it cannot be read.
    """

    indices: np.ndarray
    peak: np.ndarray
    level_db: np.ndarray
    active_ratio: np.ndarray
    clipped_ratio: np.ndarray
    keys: list[bytes]
    cancels: np.ndarray
    errors: dict[int, InputError] = field(default_factory=dict)


def measure_audio(
    source: Source, indices: np.ndarray, *, advance: Callable[[int], None], num_workers: int | None = None
) -> AudioStatistics:
    """Decodes and measures recordings in threads, because decoding, NumPy and hashing release the GIL.

    Args:
        source: Source of the recordings.
        indices: Utterances to decode, ascending.
        advance: Called with 1 after each recording.
        num_workers: Number of threads; None = one for each processor core.
    """
    columns = np.full((4, len(indices)), np.nan, dtype=np.float32)
    keys: list[bytes] = [b""] * len(indices)
    cancels = np.zeros(len(indices), dtype=bool)
    errors: dict[int, InputError] = {}

    def measure(index: int) -> AudioMeasurement | InputError:
        try:
            return measure_recording(*source.read_recording(index))
        except InputError as error:
            return error
        except (ValueError, RuntimeError, OSError) as error:
            return InputError(f"cannot be read: {error}")

    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        # In chunks: the queued calls of a thousand hours would fill the memory.
        for first in range(0, len(indices), _CHUNK):
            chunk = [int(index) for index in indices[first : first + _CHUNK]]
            for position, measured in enumerate(pool.map(measure, chunk), start=first):
                advance(1)
                if isinstance(measured, InputError):
                    errors[int(indices[position])] = measured
                else:
                    columns[:, position] = measured[:4]
                    keys[position], cancels[position] = measured.key, measured.cancels
    peak, level_db, active_ratio, clipped_ratio = columns
    return AudioStatistics(np.asarray(indices), peak, level_db, active_ratio, clipped_ratio, keys, cancels, errors)
