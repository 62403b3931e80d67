"""Audio files to mono float32 waveforms at one sample rate."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from common import storage
from data.errors import InputError

SAMPLE_RATE = 16000

# An MP3 header can promise a little more or less than the decoder delivers: one encoder delay and
# one last block, each at most two frames of 1,152 samples. Every other format must be exact.
MP3_SLACK_SAMPLES = 4 * 1152
# libsndfile's "unknown length", from FLAC streams whose encoder could not go back to the header.
_UNKNOWN_LENGTH = 2**62
_MP3_INFO_FRAMES = (b"Xing", b"Info", b"VBRI")
_VARIANCE_EPSILON = 1e-7


def read_header(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads length and sample rate, without decoding.

    Args:
        path: a FLAC, WAV, OGG or MP3 file; a URL is read as far as its header needs.

    Returns:
        (number of samples per channel, at the file's own rate; sample rate in Hz).

    Raises:
        InputError: the file is absent, is no audio that libsndfile knows, is empty, or does not say
            how long it is.
    """
    try:
        if storage.is_remote(path):
            with storage.open_binary(path) as stream, soundfile.SoundFile(stream) as file:
                _check_length(path, file)
                return int(file.frames), int(file.samplerate)
        with soundfile.SoundFile(str(path)) as file:
            _check_length(path, file)
            return int(file.frames), int(file.samplerate)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error


def read_audio(
    path: str | os.PathLike[str], *, content: bytes | None = None
) -> tuple[np.ndarray, int]:
    """Decodes an audio file as it is.

    Args:
        path: a FLAC, WAV, OGG or MP3 file of any number of channels.
        content: the file's bytes where they are at hand; `path` is then but its name.

    Returns:
        (float32 [T, C], T the header's length; sample rate in Hz). Float files and lossy decoders
        overshoot [-1, 1].

    Raises:
        InputError: the file cannot be read, ends early, or holds values that are not finite.
    """
    try:
        if content is None and storage.is_remote(path):
            content = storage.read_bytes(path)
        with soundfile.SoundFile(str(path) if content is None else io.BytesIO(content)) as file:
            _check_length(path, file, content)
            promised, rate, format_name = file.frames, file.samplerate, file.format
            channels = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error
    if len(channels) != promised:
        slack = MP3_SLACK_SAMPLES if format_name == "MP3" else 0
        if abs(promised - len(channels)) > slack:
            raise InputError(
                f"{path} ends early: {len(channels)} of {promised} samples; fetch or make it again"
            )
        missing = max(0, promised - len(channels))
        channels = np.pad(channels[:promised], ((0, missing), (0, 0)))
    if not np.isfinite(channels).all():
        raise InputError(f"{path} holds values that are not finite: remove it or record it again")
    return channels, rate


def load_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = SAMPLE_RATE,
    on_rate_mismatch: str = "resample",
    content: bytes | None = None,
) -> np.ndarray:
    """Decodes an audio file to one channel at one rate.

    Args:
        path: as `read_audio`.
        sample_rate: wanted rate in Hz.
        on_rate_mismatch: "resample", or "refuse" to raise where the file has another rate.
        content: as `read_audio`.

    Returns:
        float32 [T] in [-1, 1], the mean over channels; T is `resampled_length` of the header's
        length.

    Raises:
        InputError: as `read_audio`, or the file has another rate while `on_rate_mismatch` is
            "refuse".
    """
    check_rate_policy(on_rate_mismatch)
    channels, rate = read_audio(path, content=content)
    if rate != sample_rate and on_rate_mismatch == "refuse":
        raise InputError(
            f"{path} has {rate} Hz, wanted {sample_rate} Hz: convert it, or allow resampling"
        )
    return to_mono(channels, rate, sample_rate)


def to_mono(channels: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """The mean over channels [T, C] at another rate, float32 in [-1, 1]."""
    waveform = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    # Float files, lossy decoders and the resampler overshoot full scale.
    return np.clip(resample(waveform, from_rate, to_rate), -1.0, 1.0)


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Number of samples after resampling: num_samples * to_rate / from_rate, rounded up."""
    return -(-int(num_samples) * int(to_rate) // int(from_rate))


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples with soxr's high-quality filter.

    Args:
        waveform: float32 [T].
        from_rate: rate of `waveform` in Hz.
        to_rate: wanted rate in Hz.

    Returns:
        float32, exactly `resampled_length(T, from_rate, to_rate)` long. soxr itself returns up to
        two samples fewer or more, which would make lengths depend on more than the header.
    """
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if from_rate == to_rate or not len(waveform):
        return waveform
    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return fit_length(resampled, resampled_length(len(waveform), from_rate, to_rate))


def fit_length(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """Trims or zero-pads float32 [T] at its end to [num_samples]."""
    if len(waveform) >= num_samples:
        return waveform[:num_samples]
    return np.pad(waveform, (0, num_samples - len(waveform)))


def normalize_waveform(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as wav2vec 2.0's published feature extractor does.

    Args:
        waveform: float32 [T], the valid samples alone: padding would shift the statistics.

    Returns:
        float32 [T], (x - mean) / sqrt(variance + 1e-7); zeros for silence, empty for empty.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if not len(waveform):
        return waveform
    centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
    variance = np.square(centred).mean(dtype=np.float64)
    return centred * np.float32(1.0 / np.sqrt(variance + _VARIANCE_EPSILON))


def check_rate_policy(on_rate_mismatch: str) -> None:
    """Raises ValueError unless `on_rate_mismatch` is "resample" or "refuse"."""
    if on_rate_mismatch not in ("resample", "refuse"):
        raise ValueError(f"on_rate_mismatch is {on_rate_mismatch!r}, wanted resample or refuse")


def _check_length(
    path: str | os.PathLike[str], file: soundfile.SoundFile, content: bytes | None = None
) -> None:
    """Refuses a file that is empty or does not say how long it is.

    libsndfile guesses the length of an MP3 file without an information frame from its first frame
    and its size, and then reads no further: with a variable bit rate, speech is lost unseen.
    """
    if file.frames <= 0:
        raise InputError(
            f"no samples in audio file {path}: remove it or record it again", code="empty_audio"
        )
    if file.frames >= _UNKNOWN_LENGTH or (
        file.format == "MP3" and not _has_mp3_info(path, content)
    ):
        raise InputError(f"{path} does not say how long it is: convert it, for example to FLAC")


def _has_mp3_info(path: str | os.PathLike[str], content: bytes | None) -> bool:
    file: BinaryIO
    with storage.open_binary(path) if content is None else io.BytesIO(content) as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":  # its size: four times seven bits, without these ten bytes
            size = sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        first_frame = file.read(2048)
    return any(name in first_frame for name in _MP3_INFO_FRAMES)


def _unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    if not storage.exists(path):
        return InputError(f"no audio file {path}: check the path", code="missing_audio")
    if not storage.is_file(path):
        return InputError(f"{path} is not a file: give the path of an audio file")
    # libsndfile's text ends with its own copy of the path.
    reason = str(error).rstrip(".").rsplit(": ", 1)[-1]
    return InputError(f"cannot decode audio file {path} ({reason}): fetch or make it again")


def load_waveform(
    path: str | os.PathLike[str], *, on_rate_mismatch: str = "resample"
) -> np.ndarray:
    """Decodes a file as a model wants it: `load_audio` at 16 kHz, then `normalize_waveform`."""
    return normalize_waveform(load_audio(path, on_rate_mismatch=on_rate_mismatch))
