"""Filters, clipping and the telephone: kinds of augmentation that need nothing but the waveform."""

from __future__ import annotations

import functools
import io

import numpy as np
import soundfile
from scipy import fft

from data.audio.decoding import SAMPLE_RATE, fit_length

# Zero-phase filters: taps, and the bins of their frequency response, 0 to 8 kHz.
_TAPS = 512
_BINS = _TAPS // 2 + 1
_MIN_BLOCK = 4096
# Middles of the equalizer's octaves.
OCTAVES_HZ = tuple(8000.0 / 2**i for i in range(7, -1, -1))
TELEPHONE_RATE = 8000
TELEPHONE_BAND_HZ = (300.0, 3400.0)
# A codec gets the level that a line would have: it is made for speech well above its smallest step, and below its
# largest.
_CODEC_PEAK = np.float32(0.7)
_FULL_SCALE = 32768


def convolve(waveform: np.ndarray, kernel: np.ndarray, *, origin: int = 0) -> np.ndarray:
    """Convolves block by block with FFTs that stay in the processor's cache.

    Args:
        waveform: float32 [T].
        kernel: float32 [K].
        origin: Position of the kernel that stands for no delay.

    Returns:
        float32 [T]: sum over k of kernel[k] * waveform[t - k + origin].
    """
    size = max(_MIN_BLOCK, 1 << (2 * len(kernel) - 1).bit_length())
    hop = size - len(kernel) + 1
    count = -(-(len(waveform) + origin) // hop)
    blocks = np.zeros((count, hop), dtype=np.float32)
    blocks.reshape(-1)[: len(waveform)] = waveform
    spectra = fft.rfft(blocks, size, axis=1)
    spectra *= fft.rfft(kernel.astype(np.float32, copy=False), size)
    parts = fft.irfft(spectra, size, axis=1, overwrite_x=True)
    parts[1:, : size - hop] += parts[:-1, hop:]
    return parts[:, :hop].reshape(-1)[origin : origin + len(waveform)]


def filter_bands(waveform: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiplies the spectrum with real gains, which shifts nothing in time.

    Args:
        waveform: float32 [T].
        gains: float [257], gain at equal steps from 0 to 8 kHz.

    Returns:
        float32 [T].
    """
    kernel = np.fft.fftshift(np.fft.irfft(gains, _TAPS)) * np.hanning(_TAPS + 1)[:-1]
    return convolve(waveform, kernel.astype(np.float32), origin=_TAPS // 2)


def equalize(waveform: np.ndarray, octave_gains_db: np.ndarray) -> np.ndarray:
    """Applies the gain in dB of each octave of `OCTAVES_HZ`, interpolated over the logarithm of the frequency."""
    return filter_bands(waveform, 10 ** (np.interp(_octaves(), np.log2(OCTAVES_HZ), octave_gains_db) / 20))


@functools.cache
def _octaves() -> np.ndarray:
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, _BINS)
    return np.log2(np.maximum(frequencies, 1.0))


def low_pass(waveform: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Removes what is above a frequency, with a slope of 250 Hz."""
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, _BINS)
    return filter_bands(waveform, np.clip((cutoff_hz + 250.0 - frequencies) / 250.0, 0.0, 1.0))


def clip(waveform: np.ndarray, cut_db: float) -> np.ndarray:
    """Clips a waveform at `cut_db` below its peak."""
    level = np.float32(_peak(waveform) * 10 ** (-cut_db / 20))
    return np.clip(waveform, -level, level)


def telephone(waveform: np.ndarray, codec: str) -> np.ndarray:
    """Sends a waveform through a telephone of 8 kHz with a band of 300 to 3,400 Hz.

    Args:
        waveform: float32 [T] at 16 kHz.
        codec: "none" for the band alone, "mulaw" (ITU-T G.711) or "gsm" (ETSI GSM 06.10 full rate).

    Returns:
        float32 [T] at 16 kHz, with nothing above 4 kHz.
    """
    length = len(waveform)
    size = 4 * fft.next_fast_len(-(-(length + _TAPS) // 4), real=True)
    spectrum = fft.rfft(waveform, size)[: size // 4 + 1]
    spectrum *= _telephone_gains(size)
    if codec != "none":
        narrow = fft.irfft(spectrum, size // 2)[: -(-length // 2)]
        if highest := _peak(narrow):
            scale = np.float32(_CODEC_PEAK / highest)
            coded = mulaw(narrow * scale) if codec == "mulaw" else gsm(narrow * scale)
            spectrum = fft.rfft(coded / scale, size // 2)
    # The missing upper half of the spectrum is zero; twice as many samples want twice the amplitude.
    return np.float32(2.0) * fft.irfft(spectrum, size)[:length]


@functools.lru_cache(maxsize=64)
def _telephone_gains(size: int) -> np.ndarray:
    """Returns the gain at each frequency up to 4 kHz, with slopes of 100 and 400 Hz, times the change of the rate."""
    frequencies = np.linspace(0.0, TELEPHONE_RATE / 2, size // 4 + 1)
    low, high = TELEPHONE_BAND_HZ
    gains = np.clip((frequencies - low + 100.0) / 100.0, 0.0, 1.0) * np.clip((high + 400.0 - frequencies) / 400.0, 0, 1)
    return (0.5 * gains).astype(np.float32)


def mulaw(waveform: np.ndarray) -> np.ndarray:
    """Encodes and decodes with the mu-law of G.711, 8 bits a sample."""
    samples = np.clip(np.rint(waveform * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int32)
    return _mulaw_table()[samples + _FULL_SCALE]


@functools.cache
def _mulaw_table() -> np.ndarray:
    """Returns the decoded value of each sample of 16 bits, from -32768 on."""
    samples = np.arange(-_FULL_SCALE, _FULL_SCALE)
    magnitude = np.minimum(np.abs(samples) >> 2, 8158) + 33  # the standard has 14 bits and a bias of 33
    segment = np.floor(np.log2(magnitude)).astype(np.int64) - 5
    step = (magnitude >> (segment + 1)) & 15
    decoded = (((2 * step + 33) << segment) - 33) * 4
    return (np.sign(samples) * decoded / _FULL_SCALE).astype(np.float32)


def gsm(waveform: np.ndarray) -> np.ndarray:
    """Encodes and decodes with GSM 06.10 at 13 kbit/s; float32 [T] at 8 kHz keeps its length."""
    file = io.BytesIO()
    soundfile.write(file, waveform, TELEPHONE_RATE, format="WAV", subtype="GSM610")
    file.seek(0)
    return fit_length(soundfile.read(file, dtype="float32")[0], len(waveform))


def power(waveform: np.ndarray) -> float:
    """Returns the mean square of float32 [T]; 0 for an empty waveform."""
    return float(np.dot(waveform, waveform)) / max(len(waveform), 1)


def _peak(waveform: np.ndarray) -> float:
    return float(max(waveform.max(initial=0.0), -waveform.min(initial=0.0)))
