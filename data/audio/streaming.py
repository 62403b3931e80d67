"""Reads recordings of any length in constant memory, as blocks of mono samples at 16 kHz."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from data.audio.decoder import decode_blocks, open_audio, scan_scale
from data.audio.decoding import (
    SAMPLE_RATE,
    check_rate_policy,
    mix_down,
    mix_samples,
    read_header,
    resampled_length,
)
from data.audio.media_file import MediaFile
from data.common.errors import InputError


def duration_samples(path: str | os.PathLike[str]) -> int:
    """Returns the number of samples of a file at 16 kHz, from its header.

    Raises:
        InputError: If the header cannot be read, see `data.audio.decoding.read_header`.
    """
    num_samples, rate = read_header(path)
    return resampled_length(num_samples, rate, SAMPLE_RATE)


def stream_audio(
    path: str | os.PathLike[str], *, block_secs: float = 30.0, on_rate_mismatch: str = "resample"
) -> Iterator[np.ndarray]:
    """Yields a file in blocks that, concatenated, equal `data.audio.decoding.load_audio` of the file.

    Args:
        path: Audio file.
        block_secs: Approximate duration of a block.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".

    Yields:
        float32 [N] at 16 kHz.

    Raises:
        InputError: If the file cannot be read, ends early or holds values that are not finite; raised after the blocks
            before the fault.
    """
    check_rate_policy(on_rate_mismatch)
    with open_audio(path) as file:
        rate, num_left = file.samplerate, file.frames
        if rate != SAMPLE_RATE and on_rate_mismatch == "refuse":
            raise InputError(f"{path} has {rate} Hz, wanted {SAMPLE_RATE} Hz: convert it, or allow resampling")
        resampler = None
        if rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        num_wanted = resampled_length(num_left, rate, SAMPLE_RATE)
        for block in _mono_blocks(path, file, max(1, round(block_secs * rate))):
            num_left -= len(block)
            if resampler is not None:
                block = resampler.resample_chunk(np.ascontiguousarray(block), last=not num_left)
            # soxr returns up to two samples fewer or more than the header promises.
            block = block[:num_wanted]
            if not num_left:
                block = np.pad(block, (0, num_wanted - len(block)))
            num_wanted -= len(block)
            if len(block):
                yield block


def _mono_blocks(
    path: str | os.PathLike[str], file: soundfile.SoundFile | MediaFile, block_samples: int
) -> Iterator[np.ndarray]:
    """Yields one channel at the file's rate; several channels are mixed in the same blocks as `to_mono` does."""
    scale = np.float32(scan_scale(path, file))
    size = block_samples if file.channels == 1 else mix_samples(file.samplerate, file.channels)
    num_read = 0
    try:
        for channels in decode_blocks(path, file, block_samples=size):
            num_read += len(channels)
            mono = mix_down(channels * scale if scale != 1.0 else channels)
            for start in range(0, len(mono), block_samples):
                yield mono[start : start + block_samples]
    except (soundfile.SoundFileError, OSError) as error:
        secs = num_read / file.samplerate
        raise InputError(f"{path} cannot be decoded after {secs:.1f} s ({error}): make it again") from error
