"""Recordings of any length in constant memory: blocks of mono samples at 16 kHz, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from data.audio import MP3_SLACK_SAMPLES, SAMPLE_RATE, check_rate_policy, read_header, resampled_length
from data.errors import InputError


def duration_samples(path: str | os.PathLike[str]) -> int:
    """Samples that a file has at 16 kHz, from its header.

    Raises:
        InputError: As `data.audio.read_header`.
    """
    num_samples, rate = read_header(path)
    return resampled_length(num_samples, rate, SAMPLE_RATE)


def stream_audio(
    path: str | os.PathLike[str], *, block_secs: float = 30.0, on_rate_mismatch: str = "resample"
) -> Iterator[np.ndarray]:
    """Yields a file piece by piece; joined, the pieces are `data.audio.load_audio` of the file.

    Args:
        path: A FLAC, WAV, OGG or MP3 file.
        block_secs: Audio read at a time; the pieces are about as long.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".

    Yields:
        float32 [N] in [-1, 1], the mean over channels at 16 kHz.

    Raises:
        InputError: The file cannot be read, ends early or holds values that are not finite; raised where it is met.
    """
    check_rate_policy(on_rate_mismatch)
    promised, rate = read_header(path)
    if rate != SAMPLE_RATE and on_rate_mismatch == "refuse":
        raise InputError(f"{path} has {rate} Hz, wanted {SAMPLE_RATE} Hz: convert it, or allow resampling")
    resampler = None
    if rate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    num_wanted, num_given, num_read = resampled_length(promised, rate, SAMPLE_RATE), 0, 0
    is_last, may_lack = False, 0
    try:
        with soundfile.SoundFile(str(path)) as file:
            may_lack = MP3_SLACK_SAMPLES if file.format == "MP3" else 0
            while not is_last:
                channels = file.read(max(1, round(block_secs * rate)), dtype="float32", always_2d=True)
                num_read += len(channels)
                is_last = num_read >= promised or not len(channels)
                block = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
                if not np.isfinite(block).all():
                    raise InputError(f"{path} holds values that are not finite: remove it or record it again")
                if resampler is not None:
                    block = resampler.resample_chunk(np.ascontiguousarray(block), last=is_last)
                # soxr gives up to two samples fewer or more than the header promises.
                block = block[: num_wanted - num_given]
                num_given += len(block)
                if is_last and num_read >= promised - may_lack and num_given < num_wanted:
                    block = np.pad(block, (0, num_wanted - num_given))
                if len(block):
                    yield np.clip(block, -1.0, 1.0)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path} cannot be decoded after {num_read / rate:.1f} s ({error}): make it again") from error
    if num_read < promised - may_lack:
        raise InputError(f"{path} ends early: {num_read} of {promised} samples; fetch or make it again")
