"""Decodes the containers that libsndfile does not know (M4A, WebM, AMR, video ...) through PyAV and its codecs."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from data.common.errors import InputError

# Encoders add silence, and containers round durations to milliseconds: what a decoder delivers may differ by this much.
_SLACK_SECS = 0.25
_MORE_ADVICE = "convert it, for example with ffmpeg"


def _load(path: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"{path} needs PyAV to be decoded, which is not installed: pip install -e '.[media]', or convert it"
        ) from error
    return av


class _Stream:
    """Bytes for FFmpeg, for which PyAV prints a traceback if a damaged file makes it seek to an impossible place."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.tell = stream.read, stream.tell
        self._stream = stream

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1  # an error, as FFmpeg has it


class MediaFile:
    """The audio of an open container; it has the part of `soundfile.SoundFile` that decoding uses.

    with MediaFile("memo.m4a", open("memo.m4a", "rb"), demuxer="mov") as file:
        samples = file.read(file.frames)

    Attributes:
        frames: Number of samples per channel by the container, which `read` delivers.
        samplerate: Rate in Hz.
        channels: Number of channels.
        subtype, format: Names of the codec and the container.
        slack: Samples by which the decoded audio may differ from `frames`.
    """

    def __init__(
        self,
        path: str,
        stream: BinaryIO,
        *,
        demuxer: str,
        kind: str = "a container",
        advice: str = "",
        walks: bool = False,
    ) -> None:
        """Opens the first audio stream; decodes nothing.

        Args:
            path: Name of the file in messages.
            stream: Its bytes, seekable.
            demuxer: Name of the only demuxer to try: one that reads no other files, whatever the bytes are.
            kind: Name of the container in messages.
            advice: How to convert it, in messages.
            walks: Whether to compare the container's duration with its packets.

        Raises:
            InputError: If PyAV is not installed, or the file is damaged, has no audio or contradicts its header.
        """
        self._path = path
        self._av = _load(path)
        self._container: Any = None
        self._stream_bytes, self._demuxer = stream, demuxer
        try:
            self._open()
            audio = self._audio
            self.samplerate = int(audio.codec_context.sample_rate or 0)
            self.channels = int(audio.codec_context.channels or 0)
            self.subtype, self.format = audio.codec_context.name.upper(), demuxer.upper()
            self.slack = math.ceil(_SLACK_SECS * self.samplerate)
            self.frames = self._find_length(walks=walks)
        except InputError:
            self.close()
            raise
        except (self._av.FFmpegError, ValueError, OSError) as error:
            self.close()
            what = f"{path} is {kind} that cannot be decoded ({_reason(error)}): fetch or make it again"
            raise InputError(f"{what}, or convert it, {advice}" if advice else what) from error
        self._blocks: Iterator[np.ndarray] | None = None
        self._held = np.zeros((0, self.channels), np.float32)
        self._num_read = 0

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the container, not the bytes."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def seekable(self) -> bool:
        """Returns False: what precedes a sample is decoded."""
        return False

    def seek(self, frames: int) -> int:
        """Raises, as files do that are not seekable."""
        raise io.UnsupportedOperation(f"{self._path} cannot be sought to sample {frames}")

    def read(self, frames: int = -1, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Returns the next samples, float32 [N, C]; fewer than wanted only at the end of the audio.

        Raises:
            InputError: If the bytes cannot be decoded, or hold more audio than the container says.
        """
        del dtype, always_2d
        left = self.frames - self._num_read
        wanted = left if frames < 0 else min(frames, left)
        parts, num_held = [self._held], len(self._held)
        try:
            if self._blocks is None:
                self._blocks = self._decode()
            # At the end, as far as the slack and one sample: more is a second recording.
            ends = wanted == left
            while num_held < wanted + (self.slack + 1 if ends else 0):
                block = next(self._blocks, None)
                if block is None:
                    break
                parts.append(block)
                num_held += len(block)
        except (self._av.FFmpegError, ValueError, OSError) as error:
            secs = (self._num_read + num_held) / self.samplerate
            raise InputError(
                f"{self._path} cannot be decoded after {secs:.1f} s ({_reason(error)}): make it again"
            ) from error
        if ends and num_held > wanted + self.slack:
            raise InputError(self._too_long(self.frames))
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._held = samples[wanted:]
        self._num_read += min(wanted, len(samples))
        return samples[:wanted]

    def _open(self) -> None:
        self.close()
        self._stream_bytes.seek(0)
        stream = _Stream(self._stream_bytes)
        self._container = self._av.open(stream, format=self._demuxer, metadata_errors="ignore")
        if not self._container.streams.audio:
            raise InputError(f"{self._path} has no audio stream: leave it out", code="empty_audio")
        self._audio = self._container.streams.audio[0]
        if self._audio.codec_context is None:
            raise InputError(f"{self._path} has audio that cannot be decoded: {_MORE_ADVICE}")

    def _find_length(self, *, walks: bool) -> int:
        """Returns the length by the container, or by its packets if it has none; raises InputError if they differ."""
        promised = self._promised()
        if promised is not None and not walks:
            return promised
        packets = self._count_packets()
        self._open()  # from its beginning
        if promised is None:
            return packets
        if packets < promised - self.slack:
            raise InputError(
                f"{self._path} ends early: its header says {promised / self.samplerate:.2f} s, it holds "
                f"{packets / self.samplerate:.2f} s; fetch or make it again"
            )
        if packets > promised + self.slack:
            raise InputError(self._too_long(promised))
        return promised

    def _promised(self) -> int | None:
        """Returns the samples of the audio by the container, None if it does not know."""
        if self._demuxer not in ("mov", "matroska", "avi", "asf", "wv", "ape", "tta"):
            return None  # guessed from the bit rate
        secs = 0.0
        if self._audio.duration:
            secs = float(self._audio.duration * self._audio.time_base)
        elif self._container.duration and len(self._container.streams) == 1:
            secs = self._container.duration / self._av.time_base
        return round(secs * self.samplerate) or None

    def _count_packets(self) -> int:
        """Returns the samples of all packets by their times, without decoding them."""
        secs, first, last = 0.0, None, None
        for packet in self._container.demux(self._audio):
            if packet.size == 0:
                continue
            length = float((packet.duration or 0) * self._audio.time_base)
            secs += length
            if packet.pts is not None:
                begin = float(packet.pts * self._audio.time_base)
                first = begin if first is None else min(first, begin)
                last = begin + length if last is None else max(last, begin + length)
        if first is not None and last is not None:
            secs = min(secs, last - first) if secs else last - first
        return round(secs * self.samplerate)

    def _decode(self) -> Iterator[np.ndarray]:
        """Yields float32 [N, C]."""
        layout = self._audio.codec_context.layout
        resampler = self._av.AudioResampler(format="fltp", layout=layout, rate=self.samplerate)
        for frame in self._container.decode(self._audio):
            if frame.samples:
                frame.pts = None  # gaps between the times of packets are no silence
                yield from _samples(resampler.resample(frame))
        yield from _samples(resampler.resample(None))

    def _too_long(self, promised: int) -> str:
        return (
            f"{self._path} holds more audio than its header says ({promised / self.samplerate:.2f} s): {_MORE_ADVICE}"
        )


def _samples(frames: list[Any]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield np.ascontiguousarray(frame.to_ndarray().T, dtype=np.float32)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)
