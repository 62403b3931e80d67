"""Decodes audio files to mono float32 waveforms at one sample rate."""

from __future__ import annotations

import os

import numpy as np
import soxr

from common import storage
from data.archives.address import parse_address
from data.audio.decoder import BLOCK_VALUES, decode_blocks, open_audio, peak, scale_of, unreadable
from data.audio.open_files import OpenFiles
from data.common.errors import InputError

SAMPLE_RATE = 16000

# Most values of a recording that is read whole: 4.6 hours of one channel at 16 kHz. Longer ones are streamed.
MAX_VALUES = 2**28
# Channels cancel each other, as one channel and its inverse do, if their mix has less than a tenth of the power that
# independent channels would leave.
_CANCELLING = 0.1
_MIX_SECS = 30.0
_VARIANCE_EPSILON = 1e-7
_FULL_SCALE = 32768
# Opus forgets what came before by and by: of 150 segments of speech 27 differ with 1 s, 2 with 4 s, none with 8 s.
_OPUS_LEAD_SECS = 8.0


def read_header(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads the length and the sample rate of a file without decoding it.

    Args:
        path: Audio file, or an address inside an archive; a URL is read as far as its header needs.

    Returns:
        (number of samples per channel at the file's rate, sample rate in Hz).

    Raises:
        InputError: If the file is absent, not readable audio, damaged, or does not say how long it is.
    """
    with open_audio(path, is_decoded=False) as file:
        return int(file.frames), int(file.samplerate)


def read_audio(path: str | os.PathLike[str], *, content: bytes | None = None) -> tuple[np.ndarray, int]:
    """Decodes an audio file at its own rate, with all its channels.

    Args:
        path: Audio file.
        content: Bytes of the file if they are in memory; `path` is then only a name.

    Returns:
        (float32 [T, C] with the header's length T, sample rate in Hz). Full scale is 1, which float files and lossy
        decoders can exceed. Integers in a float file are scaled to it.

    Raises:
        InputError: If the file is absent, not readable audio or damaged, ends early, holds values that are not finite,
            or more than `MAX_VALUES` of them.
    """
    if content is None and storage.is_remote(path) and not parse_address(path):
        try:
            content = storage.read_bytes(path)
        except OSError as error:
            raise unreadable(path, error) from error
    with open_audio(path, content=content) as file:
        if file.frames * file.channels > MAX_VALUES:
            raise InputError(
                f"{path} has {file.frames / file.samplerate / 3600:.1f} h of {file.channels} channel(s), too much to "
                "hold at once: cut it into utterances"
            )
        blocks = list(decode_blocks(path, file))
        channels = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if (scale := scale_of(file, peak(channels))) != 1.0:
            channels *= scale
        return channels, file.samplerate


def read_segment(
    path: str | os.PathLike[str],
    *,
    start: int | None,
    num_samples: int,
    channel: int | None = None,
    files: OpenFiles | None = None,
) -> tuple[np.ndarray, int]:
    """Decodes a segment of an audio file at its own rate, seeking to it where the format allows.

    Args:
        path: Audio file.
        start: First sample at the file's rate; None reads the whole file, whatever `num_samples` is.
        num_samples: Samples of the segment.
        channel: The only channel to return, from 0; None = all.
        files: Keeps the file open for the next segment of it; None = it is closed.

    Returns:
        (float32 [num_samples, C], sample rate in Hz).

    Raises:
        InputError: If the file cannot be read (see `read_audio`), ends before the segment does, or lacks the channel.
    """
    if start is None:
        channels, rate = read_audio(path)
        return _select_channel(path, channels, channel), rate
    found = _seek_segment(path, start, num_samples, OpenFiles() if files is None else files)
    if found is None:
        whole, rate = read_audio(path)
        channels = whole[start : start + num_samples]
    else:
        channels, rate = found
    if len(channels) != num_samples:
        raise InputError(f"{path} ends before sample {start + num_samples} of a segment; fetch or make it again")
    channels = _select_channel(path, channels, channel)
    if not np.isfinite(peak(channels)):
        raise InputError(f"{path} holds values that are not finite: remove it or record it again")
    return channels, rate


def _select_channel(path: str | os.PathLike[str], channels: np.ndarray, channel: int | None) -> np.ndarray:
    """Returns one of the channels [T, C] as [T, 1], or all of them."""
    if channel is None:
        return channels
    if channel >= channels.shape[1]:
        raise InputError(f"{path} has {channels.shape[1]} channel(s), wanted channel {channel}, counted from 0")
    return np.ascontiguousarray(channels[:, channel : channel + 1])


def _seek_segment(
    path: str | os.PathLike[str], start: int, num_samples: int, files: OpenFiles
) -> tuple[np.ndarray, int] | None:
    """Returns a segment without decoding what is before it, or None if the format does not allow that."""
    with files.borrow(path) as file:
        # MPEG frames depend on those before them.
        if file.subtype.startswith("MPEG") or not file.seekable() or start + num_samples > file.frames:
            return None
        lead = min(start, round(_OPUS_LEAD_SECS * file.samplerate)) if file.subtype == "OPUS" else 0
        file.seek(start - lead)
        channels = file.read(lead + num_samples, dtype="float32", always_2d=True)[lead:]
        if len(channels) and np.isfinite(highest := peak(channels)):
            channels *= scale_of(file, highest)
        return channels, file.samplerate


def load_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = SAMPLE_RATE,
    on_rate_mismatch: str = "resample",
    content: bytes | None = None,
    start: int | None = None,
    num_samples: int = 0,
    channel: int | None = None,
    files: OpenFiles | None = None,
) -> np.ndarray:
    """Decodes an audio file to one channel at one rate.

    Args:
        path: Audio file.
        sample_rate: Rate of the result in Hz.
        on_rate_mismatch: "resample", or "refuse" to raise if the file has another rate.
        content: Bytes of the file if they are in memory; not with a `start`.
        start: First sample of a segment at the file's rate; None reads the whole file.
        num_samples: Samples of the segment at the file's rate.
        channel: The only channel to take, from 0; None = their mix.
        files: Keeps the file open for the next segment of it; None = it is closed.

    Returns:
        float32 [T], one channel as `mix_down` makes it; T is `resampled_length` of the header's length. Full scale is
        1, which float files, lossy decoders and the resampler can exceed.

    Raises:
        InputError: If the file cannot be read (see `read_audio`), or has another rate and `on_rate_mismatch` is
            "refuse".
    """
    check_rate_policy(on_rate_mismatch)
    if start is None:
        channels, rate = read_audio(path, content=content)
        channels = _select_channel(path, channels, channel)
    else:
        channels, rate = read_segment(path, start=start, num_samples=num_samples, channel=channel, files=files)
    if rate != sample_rate and on_rate_mismatch == "refuse":
        raise InputError(f"{path} has {rate} Hz, wanted {sample_rate} Hz: convert it, or allow resampling")
    return to_mono(channels, rate, sample_rate)


def to_mono(channels: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Mixes channels [T, C] down to one and resamples it."""
    size = mix_samples(from_rate, channels.shape[1])
    blocks = [mix_down(channels[start : start + size]) for start in range(0, len(channels), size)]
    return resample(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), from_rate, to_rate)


def mix_samples(rate: int, num_channels: int) -> int:
    """Returns the samples per channel to mix at a time; a stream must use the same number to get the same result."""
    return max(1, min(round(_MIX_SECS * rate), BLOCK_VALUES // num_channels))


def mix_down(block: np.ndarray) -> np.ndarray:
    """Returns the mean over channels [N, C], or the first loud channel if they cancel each other."""
    if block.shape[1] == 1:
        return block[:, 0]
    mix = block.mean(axis=1)
    powers = _cancelling_powers(block, mix)
    return mix if powers is None else block[:, int(np.argmax(powers >= powers.max() / 2))]


def channels_cancel(channels: np.ndarray, rate: int) -> bool:
    """Returns whether channels [T, C] cancel each other anywhere, so that `to_mono` takes a single one there."""
    size = mix_samples(rate, channels.shape[1])
    blocks = (channels[start : start + size] for start in range(0, len(channels), size))
    return channels.shape[1] > 1 and any(_cancelling_powers(block, block.mean(axis=1)) is not None for block in blocks)


def _cancelling_powers(block: np.ndarray, mix: np.ndarray) -> np.ndarray | None:
    """Returns the variance of each channel if they cancel each other in their mix, else None."""
    # Variances, because a constant offset is inaudible to the model and must not hide the loss.
    powers = np.array([_variance(block[:, channel]) for channel in range(block.shape[1])])
    cancel = block.shape[1] * _variance(mix) < _CANCELLING * powers.mean()
    return powers if cancel else None


def _variance(samples: np.ndarray) -> float:
    samples = np.ascontiguousarray(samples)
    centered = samples - samples.mean(dtype=np.float64).astype(np.float32)
    return float(np.dot(centered, centered)) / len(samples)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Converts float32 [T] to little-endian int16; a waveform that exceeds full scale is scaled down, not clipped."""
    if len(waveform) and (highest := peak(waveform)) > 1.0:
        waveform = waveform * np.float32(1.0 / highest)
    return np.clip(np.rint(waveform * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Returns the number of samples after resampling, num_samples * to_rate / from_rate rounded up."""
    return -(-int(num_samples) * int(to_rate) // int(from_rate))


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples with soxr's high-quality filter.

    Args:
        waveform: float32 [T].
        from_rate: Rate of `waveform` in Hz.
        to_rate: Rate of the result in Hz.

    Returns:
        float32 [resampled_length(T, from_rate, to_rate)]. soxr itself returns up to two samples fewer or more, so the
        result is trimmed or padded to make lengths depend on the header alone.
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
    """Normalizes to zero mean and unit variance, as the published feature extractor of wav2vec 2.0 does.

    Args:
        waveform: float32 [T] without padding, which would shift the statistics.

    Returns:
        float32 [T], (x - mean) / sqrt(variance + 1e-7); zeros for silence, empty for an empty waveform.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if not len(waveform):
        return waveform
    centered = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
    variance = np.square(centered).mean(dtype=np.float64)
    return centered * np.float32(1.0 / np.sqrt(variance + _VARIANCE_EPSILON))


def check_rate_policy(on_rate_mismatch: str) -> None:
    """Raises ValueError unless `on_rate_mismatch` is "resample" or "refuse"."""
    if on_rate_mismatch not in ("resample", "refuse"):
        raise ValueError(f"on_rate_mismatch is {on_rate_mismatch!r}, wanted resample or refuse")


def load_waveform(path: str | os.PathLike[str], *, on_rate_mismatch: str = "resample") -> np.ndarray:
    """Decodes a file as most models expect it, at 16 kHz and normalized."""
    return normalize_waveform(load_audio(path, on_rate_mismatch=on_rate_mismatch))
