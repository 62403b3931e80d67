"""Audio files to mono float32 waveforms at one sample rate."""

from __future__ import annotations

import os

import numpy as np
import soxr

from common import storage
from data.audio.decoder import BLOCK_VALUES, decode_blocks, open_audio, peak, scale_of, unreadable
from data.common.errors import InputError

SAMPLE_RATE = 16000

# Values of a recording that is read whole, at most: 4.6 hours of one channel at 16 kHz. What is longer is streamed.
MAX_VALUES = 2**28
# Where the mix of the channels has less than a tenth of the power that channels without relation would leave, they
# cancel each other: one is the other with its sign changed.
_CANCELLING = 0.1
_MIX_SECS = 30.0
_VARIANCE_EPSILON = 1e-7
_FULL_SCALE = 32768


def read_header(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads length and sample rate, without decoding.

    Args:
        path: a FLAC, WAV, OGG or MP3 file; a URL is read as far as its header needs.

    Returns:
        (number of samples per channel, at the file's own rate; sample rate in Hz).

    Raises:
        InputError: as `open_audio`, or the file does not say how long it is.
    """
    with open_audio(path, is_decoded=False) as file:
        return int(file.frames), int(file.samplerate)


def read_audio(path: str | os.PathLike[str], *, content: bytes | None = None) -> tuple[np.ndarray, int]:
    """Decodes an audio file as it is.

    Args:
        path: a FLAC, WAV, OGG or MP3 file of any number of channels.
        content: the file's bytes where they are at hand; `path` is then but its name.

    Returns:
        (float32 [T, C], T the header's length; sample rate in Hz). Full scale is 1; float files and lossy decoders go
        beyond it. Integers in a float file are brought to it.

    Raises:
        InputError: as `open_audio`; the file cannot be read, ends early, holds values that are not finite, or more of
            them than anybody trains on at once.
    """
    if content is None and storage.is_remote(path):
        try:
            content = storage.read_bytes(path)
        except OSError as error:
            raise unreadable(path, error) from error
    with open_audio(path, content=content) as file:
        if file.frames * file.channels > MAX_VALUES:
            raise InputError(
                f"{path} has {file.frames / file.samplerate / 3600:.1f} h of {file.channels} channel(s), too much to "
                "be held at once: cut it into utterances"
            )
        blocks = list(decode_blocks(path, file))
        channels = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if (scale := scale_of(file, peak(channels))) != 1.0:
            channels *= scale
        return channels, file.samplerate


def read_segment(path: str | os.PathLike[str], *, start: int | None, num_samples: int) -> tuple[np.ndarray, int]:
    """Decodes a part of an audio file as it is, without what lies before it where the format can be entered anywhere.

    Args:
        path: as `read_audio`.
        start: first sample at the file's own rate; None reads the whole file, whatever `num_samples`.
        num_samples: wanted.

    Returns:
        (float32 [num_samples, C], sample rate in Hz).

    Raises:
        InputError: as `read_audio`, or the file ends before the segment does.
    """
    if start is None:
        return read_audio(path)
    channels = None
    if not storage.is_remote(path):
        # Not decoded: the container was walked when its header was read, and would be again for every segment.
        with open_audio(path, is_decoded=False) as file:
            # MPEG frames lean on those before them.
            if not file.subtype.startswith("MPEG") and file.seekable() and start + num_samples <= file.frames:
                file.seek(start)
                channels, rate = file.read(num_samples, dtype="float32", always_2d=True), file.samplerate
                if len(channels) and np.isfinite(highest := peak(channels)):
                    channels *= scale_of(file, highest)
    if channels is None:
        whole, rate = read_audio(path)
        channels = whole[start : start + num_samples]
    if len(channels) != num_samples:
        raise InputError(f"{path} ends before sample {start + num_samples} of a segment; fetch or make it again")
    if not np.isfinite(peak(channels)):
        raise InputError(f"{path} holds values that are not finite: remove it or record it again")
    return channels, rate


def load_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = SAMPLE_RATE,
    on_rate_mismatch: str = "resample",
    content: bytes | None = None,
    start: int | None = None,
    num_samples: int = 0,
) -> np.ndarray:
    """Decodes an audio file to one channel at one rate.

    Args:
        path: as `read_audio`.
        sample_rate: wanted rate in Hz.
        on_rate_mismatch: "resample", or "refuse" to raise where the file has another rate.
        content: as `read_audio`; not with a `start`.
        start: as `read_segment`; None reads the whole file.
        num_samples: as `read_segment`.

    Returns:
        float32 [T], one channel as `mix_down` makes it; T is `resampled_length` of the header's length. Full scale is
        1; float files, lossy decoders and the resampler go beyond it.

    Raises:
        InputError: as `read_audio`, or the file has another rate while `on_rate_mismatch` is
            "refuse".
    """
    check_rate_policy(on_rate_mismatch)
    if start is None:
        channels, rate = read_audio(path, content=content)
    else:
        channels, rate = read_segment(path, start=start, num_samples=num_samples)
    if rate != sample_rate and on_rate_mismatch == "refuse":
        raise InputError(f"{path} has {rate} Hz, wanted {sample_rate} Hz: convert it, or allow resampling")
    return to_mono(channels, rate, sample_rate)


def to_mono(channels: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Returns channels [T, C] as one, at another rate: `mix_down`, then `resample`."""
    size = mix_samples(from_rate, channels.shape[1])
    blocks = [mix_down(channels[start : start + size]) for start in range(0, len(channels), size)]
    return resample(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), from_rate, to_rate)


def mix_samples(rate: int, num_channels: int) -> int:
    """Returns how many samples of a channel are mixed at a time; whoever reads a stream must mix as many."""
    return max(1, min(round(_MIX_SECS * rate), BLOCK_VALUES // num_channels))


def mix_down(block: np.ndarray) -> np.ndarray:
    """Returns the mean over channels [N, C], or the first loud channel where they cancel each other."""
    if block.shape[1] == 1:
        return block[:, 0]
    mix = block.mean(axis=1)
    powers = _cancelling_powers(block, mix)
    return mix if powers is None else block[:, int(np.argmax(powers >= powers.max() / 2))]


def channels_cancel(channels: np.ndarray, rate: int) -> bool:
    """Returns whether `to_mono` takes a single one of the channels [T, C] somewhere."""
    size = mix_samples(rate, channels.shape[1])
    blocks = (channels[start : start + size] for start in range(0, len(channels), size))
    return channels.shape[1] > 1 and any(_cancelling_powers(block, block.mean(axis=1)) is not None for block in blocks)


def _cancelling_powers(block: np.ndarray, mix: np.ndarray) -> np.ndarray | None:
    """Power of each channel about its mean if they cancel each other in their mix, else None."""
    # The model hears no offset, so that none may hide what is lost.
    powers = np.array([_variance(block[:, channel]) for channel in range(block.shape[1])])
    cancel = block.shape[1] * _variance(mix) < _CANCELLING * powers.mean()
    return powers if cancel else None


def _variance(samples: np.ndarray) -> float:
    samples = np.ascontiguousarray(samples)
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    return float(np.dot(centred, centred)) / len(samples)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Returns float32 [T] as little-endian 16-bit samples; what goes beyond full scale is scaled, not clipped."""
    if len(waveform) and (highest := peak(waveform)) > 1.0:
        waveform = waveform * np.float32(1.0 / highest)
    return np.clip(np.rint(waveform * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")


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


def load_waveform(path: str | os.PathLike[str], *, on_rate_mismatch: str = "resample") -> np.ndarray:
    """Decodes a file as a model wants it: `load_audio` at 16 kHz, then `normalize_waveform`."""
    return normalize_waveform(load_audio(path, on_rate_mismatch=on_rate_mismatch))
