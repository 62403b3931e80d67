"""Recordings without transcripts: audio files, segments of them, and records of shards."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soxr

from data.archives.address import archive_of
from data.audio.decoding import SAMPLE_RATE, load_audio, read_header, resampled_length
from data.audio.streaming import stream_audio
from data.common.errors import InputError
from data.common.files import relative_path
from data.corpus.segments import Segment, find_segment
from data.corpus.utterance import Row, may_be_padded
from data.shards.records import encode_flac
from data.shards.source import TFRecordSource


class FileRecording:
    """A whole audio file, or a segment of one; nothing is read before it is asked for.

    Attributes:
        name: Path of the file, for messages.
        utterance_id: Id, unique within the corpus.
        speaker_id: Speaker; "" if unknown.
        reference: Normalized transcript where the manifest has one, else "".
    """

    def __init__(self, row: Row, *, reference: str = "", on_rate_mismatch: str = "resample") -> None:
        """Stores the row of a manifest, or a row made of a path."""
        self.name = row.path
        self.utterance_id = row.utterance_id
        self.speaker_id = row.speaker_id
        self.reference = reference
        self._row = row
        self._on_rate_mismatch = on_rate_mismatch

    @property
    def file(self) -> str:
        """The file that holds the audio: an archive, if the recording lies in one."""
        return archive_of(self._row.path)

    def digest(self) -> str:
        """Returns a digest of what decides about the labels beside the audio: the segment, the channel, the texts."""
        return _digest(*self._row.time, self._row.channel, self.utterance_id, self.speaker_id, self.reference)

    @functools.cached_property
    def _place(self) -> tuple[Segment, int]:
        """The segment and the rate of the file; reads the header."""
        num_samples, rate = read_header(self._row.path)
        is_lossy = may_be_padded(self._row)
        try:
            return find_segment(self._row.time, num_samples=num_samples, sample_rate=rate, is_lossy=is_lossy), rate
        except ValueError as error:
            raise InputError(f"{self._row.place} {error}", code="bad_segment") from error

    def count_samples(self, speed: float = 1.0) -> int:
        """Returns the number of samples at 16 kHz when played at a speed, from the header.

        Raises:
            InputError: If the file cannot be read, or does not hold the segment.
        """
        segment, rate = self._place
        return samples_at(resampled_length(segment.num_samples, rate, SAMPLE_RATE), speed)

    def stream(self, speed: float = 1.0) -> Iterator[np.ndarray]:
        """Yields the samples at 16 kHz in blocks; a whole file of any length takes constant memory.

        Raises:
            InputError: If the file cannot be read.
        """
        segment, _ = self._place
        if segment.start is None and self._row.channel is None:
            blocks: Iterable[np.ndarray] = stream_audio(self._row.path, on_rate_mismatch=self._on_rate_mismatch)
        else:
            blocks = [
                load_audio(
                    self._row.path,
                    on_rate_mismatch=self._on_rate_mismatch,
                    start=segment.start,
                    num_samples=segment.num_samples,
                    channel=self._row.channel,
                )
            ]
        return at_speed(blocks, speed, self.count_samples(speed))

    def manifest_fields(
        self, output: str, start_secs: float, duration_secs: float | None, *, is_kept: bool = True
    ) -> dict[str, Any]:
        """Returns the fields of a manifest's line that say where a part of the recording is.

        Args:
            output: The manifest that will hold the line; the path is relative to its folder.
            start_secs: Start of the part in the recording, in seconds.
            duration_secs: Duration of the part, in seconds; None = the whole recording.
            is_kept: Whether the manifest will hold the line; the audio of shards is written for those alone.
        """
        del is_kept
        segment, rate = self._place
        fields: dict[str, Any] = {"audio_filepath": relative_path(self._row.path, _folder(output))}
        if self._row.channel is not None:
            fields["audio_channel"] = self._row.channel
        if duration_secs is None and segment.start is None:
            return {**fields, "duration": round(segment.num_samples / rate, 4)}
        # Not rounded, so that the same samples are read again.
        offset_secs = (segment.start or 0) / rate + start_secs
        return {**fields, "offset": offset_secs, "duration": duration_secs or segment.num_samples / rate}


class ShardRecording:
    """A record of prepared shards, whose audio is written to a file once a manifest needs it.

    Attributes:
        name: Id of the utterance and the folder of the shards, for messages.
        utterance_id: Id, unique within the corpus.
        speaker_id: Speaker; "" if unknown.
        reference: The transcript in the shards.
    """

    def __init__(self, source: TFRecordSource, index: int, *, utterance_id: str, folder: str) -> None:
        """Refers to the utterance of a source at an index."""
        self.name = f"{folder}:{source.utterance_ids[index]}"
        self.utterance_id = utterance_id
        self.speaker_id = source.speaker_ids[index]
        self.reference = source.texts[index]
        self._source = source
        self._index = index
        self._written = ""

    @property
    def file(self) -> str:
        """The shard that holds the record."""
        return self._source.shard_path(self._index)

    def digest(self) -> str:
        """Returns a digest of what the index says of the record."""
        crc32 = self._source.crc32(self._index)
        return _digest(crc32, self.utterance_id, self.speaker_id, self.reference)

    def count_samples(self, speed: float = 1.0) -> int:
        """Returns the number of samples at 16 kHz when played at a speed."""
        return samples_at(int(self._source.num_samples[self._index]), speed)

    def stream(self, speed: float = 1.0) -> Iterator[np.ndarray]:
        """Yields the samples at 16 kHz in one block; raises InputError if the record is damaged."""
        return at_speed([self._source.read_waveform(self._index)], speed, self.count_samples(speed))

    def manifest_fields(
        self, output: str, start_secs: float, duration_secs: float | None, *, is_kept: bool = True
    ) -> dict[str, Any]:
        """Returns the fields of a manifest's line, see `FileRecording.manifest_fields`; may write a FLAC file."""
        if is_kept and not self._written:
            self._written = self._write(output)
        fields: dict[str, Any] = {"audio_filepath": self._written or self.name}
        if duration_secs is None:
            return {**fields, "duration": round(self.count_samples() / SAMPLE_RATE, 4)}
        return {**fields, "offset": start_secs, "duration": duration_secs}

    def _write(self, output: str) -> str:
        folder = f"{os.path.splitext(os.path.basename(output))[0]}_audio"
        # Ids may hold slashes; the index tells apart those that become the same name.
        safe_id = re.sub(r"[^\w.-]", "_", self.utterance_id)[-100:]
        name = f"{self._index:07d}-{safe_id}.flac"
        target = os.path.join(_folder(output), folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(encode_flac(self._source.read_waveform(self._index)))
        os.replace(temporary, target)
        return os.path.join(folder, name)


def samples_at(num_samples: int, speed: float) -> int:
    """Returns the number of samples of audio that is played at a speed."""
    return num_samples if speed == 1.0 else resampled_length(num_samples, round(SAMPLE_RATE * speed), SAMPLE_RATE)


def at_speed(blocks: Iterable[np.ndarray], speed: float, num_samples: int) -> Iterator[np.ndarray]:
    """Yields blocks float32 [N] played at a speed, which changes the pitch; exactly `num_samples` in all."""
    if speed == 1.0:
        yield from blocks
        return
    # Fewer samples at the same rate play faster.
    resampler = soxr.ResampleStream(round(SAMPLE_RATE * speed), SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    left = num_samples
    for block in blocks:
        found = resampler.resample_chunk(np.ascontiguousarray(block))[:left]
        left -= len(found)
        if len(found):
            yield found
    # soxr returns up to two samples fewer or more than the length says.
    last = resampler.resample_chunk(np.zeros(0, np.float32), last=True)[:left]
    yield np.pad(last, (0, left - len(last)))


def _digest(*values: object) -> str:
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _folder(output: str) -> str:
    return os.path.dirname(os.path.abspath(output))
