"""Audio files to mono float32 waveforms at one sample rate."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from absl import logging

from common.audio_kinds import HEAD_BYTES, READABLE_FORMATS, conversion_command, identify
from data import storage
from data.containers import MP3_INFO_FRAMES, check_container, skip_id3
from data.errors import InputError

SAMPLE_RATE = 16000
# Speech recorded below 4 kHz is not understood, and no converter runs beyond 384 kHz; damaged headers say 1 Hz, which
# would make 16,000 samples of each one. Arrays of microphones have up to 64 channels.
SAMPLE_RATES = (4_000, 384_000)
MAX_CHANNELS = 64
# Read at a time, over all channels, and held at most by who reads a recording whole: 70 hours of 16 kHz come as a
# stream, but a recording that is trained on is shorter than 4.6.
_BLOCK_VALUES = 2**23
MAX_VALUES = 2**28
# Samples of a channel that a byte can hold, at the utmost: silence in FLAC, which has a bound of its own.
_MAX_SAMPLES_A_BYTE = 8192

# An MP3 header can promise a little more or less than the decoder delivers: one encoder delay and
# one last block, each at most two frames of 1,152 samples. Every other format must be exact.
MP3_SLACK_SAMPLES = 4 * 1152
# libsndfile's "unknown length", from FLAC streams whose encoder could not go back to the header.
_UNKNOWN_LENGTH = 2**62
# These libsndfile knows by their names alone: no header, or something before the first frame.
_KNOWN_BY_NAME = (".mp3", ".gsm", ".vox")
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
# A float file beyond this holds integers that nobody divided: as full scale it would be 30 dB too loud, as 16 bits it is
# above silence.
_MAX_FLOAT_PEAK = 32.0
# Where the mix of the channels has less than a tenth of the power that channels without relation would leave, they
# cancel each other: one is the other with its sign changed.
_CANCELLING = 0.1
_MIX_SECS = 30.0
_VARIANCE_EPSILON = 1e-7
_FULL_SCALE = 32768


@contextmanager
def open_audio(
    path: str | os.PathLike[str], *, content: bytes | None = None, is_decoded: bool = True
) -> Iterator[soundfile.SoundFile]:
    """Opens a recording whose header says nothing that its bytes contradict; decoding may still find a fault.

    Args:
        path: a file of a format that libsndfile knows, or a URL; told by its content, whatever its name.
        content: the file's bytes where they are at hand; `path` is then but its name.
        is_decoded: whether more than the header is wanted; then all bytes are looked at.

    Raises:
        InputError: the file is absent, no regular file, no audio that can be read, empty, shorter or longer than its
            header says, or has a rate or a number of channels that no recording has. Errors of libsndfile and of the
            file system inside the context become one as well.
    """
    try:
        with _open_bytes(path, content) as stream:
            _check_content(path, stream, is_decoded=is_decoded)
            with _open_sound(path, stream) as file:
                _check_header(path, file, stream)
                yield file
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error, content) from error


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


def read_audio(
    path: str | os.PathLike[str], *, content: bytes | None = None
) -> tuple[np.ndarray, int]:
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
            raise _unreadable(path, error, None) from error
    with open_audio(path, content=content) as file:
        if file.frames * file.channels > MAX_VALUES:
            raise InputError(
                f"{path} has {file.frames / file.samplerate / 3600:.1f} h of {file.channels} channel(s), too much to be "
                "held at once: cut it into utterances"
            )
        blocks = list(decode_blocks(path, file))
        channels = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        rate, is_float = file.samplerate, file.subtype in _FLOAT_SUBTYPES
    if is_float and (scale := _float_scale(_peak(channels))) != 1.0:
        channels *= scale
    return channels, rate


def decode_blocks(
    path: str | os.PathLike[str], file: soundfile.SoundFile, *, block_samples: int = 0
) -> Iterator[np.ndarray]:
    """Decodes an open recording, block by block, in memory that does not depend on what its header promises.

    Args:
        path: for messages.
        file: of `open_audio`, at its beginning.
        block_samples: samples of a channel at a time; 0 = some 30 MB.

    Yields:
        float32 [N, C], as stored; together they have the header's length.

    Raises:
        InputError: the file ends early or holds values that are not finite.
    """
    promised, num_read = file.frames, 0
    most = max(1, _BLOCK_VALUES // file.channels)
    block_samples = min(block_samples or most, most)
    while num_read < promised:
        block = file.read(min(block_samples, promised - num_read), dtype="float32", always_2d=True)
        if not len(block):
            break
        if not np.isfinite(_peak(block)):
            raise InputError(f"{path} holds values that are not finite: remove it or record it again")
        num_read += len(block)
        yield block
    missing = promised - num_read
    if missing > (MP3_SLACK_SAMPLES if file.subtype.startswith("MPEG") else 0):
        raise InputError(f"{path} ends early: {num_read} of {promised} samples; fetch or make it again")
    if missing:
        yield np.zeros((missing, file.channels), np.float32)


def float_scale(path: str | os.PathLike[str], file: soundfile.SoundFile) -> float:
    """Returns what `read_audio` multiplies the values of an open file by; leaves the file at its beginning."""
    if file.subtype not in _FLOAT_SUBTYPES:
        return 1.0
    peak = 0.0
    try:
        for block in decode_blocks(path, file):
            peak = max(peak, _peak(block))
    except InputError:
        pass  # whoever decodes meets it again, behind what can be used
    file.seek(0)
    return _float_scale(peak)


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
        float32 [T], one channel as `mix_down` makes it; T is `resampled_length` of the header's length. Full scale is
        1; float files, lossy decoders and the resampler go beyond it.

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
    """Returns channels [T, C] as one, at another rate: `mix_down`, then `resample`."""
    size = mix_samples(from_rate, channels.shape[1])
    blocks = [mix_down(channels[start : start + size]) for start in range(0, len(channels), size)]
    return resample(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), from_rate, to_rate)


def mix_samples(rate: int, num_channels: int) -> int:
    """Returns how many samples of a channel are mixed at a time; whoever reads a stream must mix as many."""
    return max(1, min(round(_MIX_SECS * rate), _BLOCK_VALUES // num_channels))


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
    return channels.shape[1] > 1 and any(
        _cancelling_powers(block, block.mean(axis=1)) is not None for block in blocks
    )


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
    peak = _peak(waveform) if len(waveform) else 0.0
    if peak > 1.0:
        waveform = waveform * np.float32(1.0 / peak)
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


def load_waveform(
    path: str | os.PathLike[str], *, on_rate_mismatch: str = "resample"
) -> np.ndarray:
    """Decodes a file as a model wants it: `load_audio` at 16 kHz, then `normalize_waveform`."""
    return normalize_waveform(load_audio(path, on_rate_mismatch=on_rate_mismatch))


def _float_scale(peak: float) -> float:
    """A power of two that brings unscaled integers of 16, 24 or 32 bits to full scale; 1 for all others."""
    if peak <= _MAX_FLOAT_PEAK:
        return 1.0
    for bits in (16, 24, 32):
        if peak <= 2.0**bits:  # twice what the integers reach: who resampled them overshot
            return 2.0 ** (1 - bits)
    return float(2.0 ** -np.ceil(np.log2(peak)))


def _peak(values: np.ndarray) -> float:
    """Largest magnitude; NaN if any value is."""
    return max(float(values.max()), -float(values.min()))


@contextmanager
def _open_bytes(path: str | os.PathLike[str], content: bytes | None) -> Iterator[BinaryIO]:
    """Opens what is to be decoded. Of what is local, regular files only: a pipe would wait for ever."""
    if content is not None:
        yield io.BytesIO(content)
    elif storage.is_remote(path):
        with storage.open_binary(path) as stream:
            yield stream
    elif "\0" in os.fspath(path):
        raise InputError(f"no audio file {os.fspath(path)!r}: check the path", code="missing_audio")
    else:
        # Not blocking, so that a pipe without a writer opens at once.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb", buffering=0) as local:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{path} is not a file: give the path of an audio file")
            yield local  # type: ignore[misc]


def _check_content(path: str | os.PathLike[str], stream: BinaryIO, *, is_decoded: bool) -> None:
    """Refuses containers that are not read, and those that hold less or more than they say."""
    kind = identify(stream.read(HEAD_BYTES))
    if kind is not None and not kind.is_readable:
        if kind.is_audio:
            advice = f"which is not read ({READABLE_FORMATS} are): convert it, for example {conversion_command(path)}"
            raise InputError(f"{path} is {kind.name}, {advice}")
        raise InputError(f"{path} is {kind.name} and no audio: fetch the recording itself, or leave it out")
    verdict = check_container(
        stream,
        stream.seek(0, os.SEEK_END) or stream.tell(),
        # Behind a URL each look costs a request: what is decoded later is looked at then.
        walks=is_decoded or not storage.is_remote(path),
        is_decoded=is_decoded,
    )
    if verdict.fault:
        raise InputError(f"{path} {verdict.fault}", code=verdict.code)
    if verdict.is_unended and not is_decoded:  # once, and not again in each epoch
        logging.warning("%s has no end-of-stream mark: see that it is whole", path)
    stream.seek(0)


@contextmanager
def _open_sound(path: str | os.PathLike[str], stream: BinaryIO) -> Iterator[soundfile.SoundFile]:
    is_local = isinstance(stream, io.FileIO)
    try:
        # By its handle: from a name libsndfile would guess a format without a header, and read noise.
        file = soundfile.SoundFile(stream.fileno() if is_local else stream, closefd=False)
    except soundfile.SoundFileError:
        name = os.fspath(path)
        if not is_local or not name.lower().endswith(_KNOWN_BY_NAME):
            raise
        file = soundfile.SoundFile(name)
    with file:
        yield file


def _check_header(path: str | os.PathLike[str], file: soundfile.SoundFile, stream: BinaryIO) -> None:
    """Refuses a header without a length, and one that says what no recording has.

    libsndfile guesses the length of an MP3 file without an information frame from its first frame
    and its size, and then reads no further: with a variable bit rate, speech is lost unseen.
    """
    if file.frames <= 0:
        raise InputError(f"no samples in audio file {path}: remove it or record it again", code="empty_audio")
    if not SAMPLE_RATES[0] <= file.samplerate <= SAMPLE_RATES[1] or file.channels > MAX_CHANNELS:
        raise InputError(
            f"{path} has {file.samplerate} Hz and {file.channels} channel(s) by its header, wanted {SAMPLE_RATES[0]} "
            f"to {SAMPLE_RATES[1]} Hz and at most {MAX_CHANNELS} channels: fetch or make it again"
        )
    position = stream.tell()  # libsndfile reads by the same handle
    says_length = not file.subtype.startswith("MPEG") or _has_mp3_length(stream)
    num_bytes = stream.seek(0, os.SEEK_END) or stream.tell()
    stream.seek(position)
    if file.frames >= _UNKNOWN_LENGTH or not says_length:
        raise InputError(f"{path} does not say how long it is: convert it, for example to FLAC")
    if file.frames > num_bytes * _MAX_SAMPLES_A_BYTE:
        raise InputError(
            f"{path} is damaged: its header promises {file.frames} samples in {num_bytes} bytes; fetch or make it again"
        )


def _has_mp3_length(stream: BinaryIO) -> bool:
    """Whether MPEG audio has an information frame, or the WAV around it a count of its samples."""
    stream.seek(skip_id3(stream))
    head = stream.read(2048)
    return any(name in head for name in (*MP3_INFO_FRAMES, *((b"fact",) if head[:4] == b"RIFF" else ())))


def _unreadable(path: str | os.PathLike[str], error: Exception, content: bytes | None) -> InputError:
    if content is None:
        try:
            is_there, is_file = storage.exists(path), storage.is_file(path)
        except OSError as reason:  # a file system that does not answer, or that there is none for
            return InputError(f"cannot read audio file {path} ({reason}): check the path", code="missing_audio")
        if not is_there:
            return InputError(f"no audio file {path}: check the path", code="missing_audio")
        if not is_file:
            return InputError(f"{path} is not a file: give the path of an audio file")
    # libsndfile's text ends with its own copy of the path.
    reason = str(error).rstrip(".").rsplit(": ", 1)[-1]
    if "Format not recognised" in reason:
        return InputError(
            f"cannot decode audio file {path} (no header of {READABLE_FORMATS}): convert it to one of these, or fetch or "
            "make it again"
        )
    return InputError(f"cannot decode audio file {path} ({reason}): fetch or make it again")
