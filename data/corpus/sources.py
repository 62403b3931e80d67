"""Defines sources, which give pipelines texts and lengths at once and waveforms by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from common import storage
from data.audio.decoding import (
    SAMPLE_RATE,
    check_rate_policy,
    load_audio,
    read_segment,
    resampled_length,
)
from data.audio.open_files import OpenFiles
from data.common.errors import InputError
from data.corpus.faults import Fault, Report, refuse
from data.corpus.utterance import Fields, Utterance


class Source(Protocol):
    """N utterances with random access; `read_waveform` is thread-safe."""

    @property
    def utterance_ids(self) -> Sequence[str]:
        """N unique ids."""

    @property
    def texts(self) -> Sequence[str]:
        """N transcripts as stored."""

    @property
    def speaker_ids(self) -> Sequence[str]:
        """N speakers; "" if unknown."""

    @property
    def num_samples(self) -> np.ndarray:
        """Lengths at 16 kHz, int64 [N]."""

    @property
    def sample_rates(self) -> np.ndarray:
        """Rates of the recordings in Hz before resampling, int32 [N]."""

    def read_waveform(self, index: int) -> np.ndarray:
        """Returns float32 [num_samples[index]] at 16 kHz with full scale 1, not normalized.

        Raises:
            InputError: If the recording cannot be read.
        """

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the recording as it is stored, (float32 [T, C], rate in Hz).

        Raises:
            InputError: If the recording cannot be read.
        """


def segment_starts(source: Source) -> Mapping[str, int]:
    """Returns utterance id -> first sample at the file's rate, for utterances that are segments of a file."""
    return getattr(source, "segment_starts", {})  # shards have none


def duration_conflicts(source: Source) -> Mapping[str, str]:
    """Returns utterance id -> how the duration in the manifest contradicts the file, if it does."""
    return getattr(source, "duration_conflicts", {})


class Span(NamedTuple):
    """Locates the audio of an utterance in its file.

    Attributes:
        path: Absolute path or URL of the file.
        channel: The only channel that is heard; None = the mix of all.
        start: First sample at the file's rate; None if the utterance is the whole file.
        num_samples: Samples at the file's rate.
        sample_rate: Rate of the file in Hz.
    """

    path: str
    channel: int | None
    start: int | None
    num_samples: int
    sample_rate: int


def listed_utterances(source: Source) -> Sequence[Utterance]:
    """Returns the utterances of a source as a list names them; () for one that is no list of files."""
    return getattr(source, "utterances", ())


def spans(source: Source) -> Sequence[Span | None]:
    """Returns where the audio of each utterance is stored; None for one that is no file or part of a file."""
    found = getattr(source, "spans", None)
    return [None] * len(source.utterance_ids) if found is None else found


class FileSource:
    """A `Source` of audio files that are decoded on demand.

    source = FileSource(utterances=read_jsonl("train.jsonl"))
    text, waveform = source.texts[0], source.read_waveform(0)
    """

    def __init__(
        self,
        *,
        utterances: Sequence[Utterance],
        on_rate_mismatch: str = "resample",
        report: Report = refuse,
    ):
        """Lists the utterances.

        Args:
            utterances: Utterances of `data.corpus.manifest`.
            on_rate_mismatch: "resample" to 16 kHz, or "refuse".
            report: With "refuse", called with the files that have another rate, which are left out when it returns.

        Raises:
            InputError: If `report` raises.
        """
        check_rate_policy(on_rate_mismatch)
        if on_rate_mismatch == "refuse":
            utterances = _without_other_rates(utterances, report)
        self._utterances = list(utterances)
        self._on_rate_mismatch = on_rate_mismatch
        self._files = OpenFiles()
        self.utterance_ids: Sequence[str] = [item.utterance_id for item in utterances]
        self.texts: Sequence[str] = [item.text for item in utterances]
        self.speaker_ids: Sequence[str] = [item.speaker_id for item in utterances]
        lengths = [resampled_length(item.num_samples, item.sample_rate, SAMPLE_RATE) for item in utterances]
        self.num_samples = np.array(lengths, dtype=np.int64)
        self.sample_rates = np.array([item.sample_rate for item in utterances], dtype=np.int32)
        self.segment_starts = {item.utterance_id: item.start for item in utterances if item.start is not None}
        self.duration_conflicts = {
            item.utterance_id: item.duration_conflict for item in utterances if item.duration_conflict
        }

    @property
    def utterances(self) -> Sequence[Utterance]:
        """Returns the utterances as they are listed."""
        return self._utterances

    @property
    def fields(self) -> dict[str, Fields]:
        """Utterance id -> further fields of its manifest."""
        return {item.utterance_id: item.fields for item in self._utterances if item.fields}

    @property
    def spans(self) -> Sequence[Span | None]:
        """Returns where the audio of each utterance is stored."""
        paths = {path: storage.absolute(path) for path in {item.audio_filepath for item in self._utterances}}
        return [
            Span(paths[item.audio_filepath], item.channel, item.start, item.num_samples, item.sample_rate)
            for item in self._utterances
        ]

    def read_waveform(self, index: int) -> np.ndarray:
        """Returns the samples of an utterance at 16 kHz."""
        utterance = self._utterances[index]
        waveform = load_audio(
            utterance.audio_filepath,
            on_rate_mismatch=self._on_rate_mismatch,
            start=utterance.start,
            num_samples=utterance.num_samples,
            channel=utterance.channel,
            files=self._files,
        )
        wanted = int(self.num_samples[index])
        # The plan was made with the length in the header, so the file must have been replaced since.
        if len(waveform) != wanted:
            raise InputError(
                f"{utterance.audio_filepath} has {len(waveform)} samples, {wanted} when it was listed: "
                "start again with the new files"
            )
        return waveform

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the recording of an utterance at its own rate, with all channels."""
        utterance = self._utterances[index]
        return read_segment(
            utterance.audio_filepath,
            start=utterance.start,
            num_samples=utterance.num_samples,
            channel=utterance.channel,
            files=self._files,
        )


def _without_other_rates(utterances: Sequence[Utterance], report: Report) -> list[Utterance]:
    """Returns the utterances at 16 kHz, and reports the others."""
    other_rate = [item for item in utterances if item.sample_rate != SAMPLE_RATE]
    if other_rate:
        report(
            Fault(
                "wrong_rate",
                f"{len(other_rate)} of {len(utterances)} files do not have {SAMPLE_RATE} Hz, "
                f"first {other_rate[0].audio_filepath} with {other_rate[0].sample_rate} Hz: "
                "convert them, or allow resampling",
                {item.utterance_id: f"{item.sample_rate} Hz" for item in other_rate},
            )
        )
    return [item for item in utterances if item.sample_rate == SAMPLE_RATE]
