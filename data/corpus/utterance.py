"""Defines an utterance of a corpus, and a row of a list before the header of its audio file is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from data.archives.address import parse_address
from data.corpus.segments import NO_TIME, ListedTime

Fields = tuple[tuple[str, str], ...]
"""Name and value of each further field of a manifest that puts utterances into groups, see `data.corpus.slices`."""

# Endings of what encoders with silence of their own write: MP3, AAC, Opus in WebM, AMR, WMA, and video.
COMPRESSED_SUFFIXES = (
    ".mp3", ".m4a", ".m4b", ".mp4", ".aac", ".webm", ".mka", ".mkv", ".mov", ".3gp", ".amr", ".wma", ".avi", ".ts"
)  # fmt: skip


@dataclass(frozen=True)
class Utterance:
    """One recording and its transcript.

    Attributes:
        utterance_id: Unique id within its list.
        audio_filepath: Path relative to the current folder, or a URL.
        text: Transcript as read, not normalized.
        num_samples: Samples per channel, at `sample_rate`.
        sample_rate: Rate of the file in Hz.
        speaker_id: Speaker; "" if unknown.
        start: First sample of a segment, at `sample_rate`; None if the utterance is the whole file.
        duration_conflict: How the duration in the manifest contradicts the file; "" if it does not.
        channel: The only channel to hear, from 0; None = the mix of all.
        fields: Further fields of the manifest, such as the accent.
    """

    utterance_id: str
    audio_filepath: str
    text: str
    num_samples: int
    sample_rate: int
    speaker_id: str = ""
    start: int | None = None
    duration_conflict: str = ""
    channel: int | None = None
    fields: Fields = ()

    @property
    def duration_secs(self) -> float:
        """The duration in seconds."""
        return self.num_samples / self.sample_rate


class Row(NamedTuple):
    """An utterance as listed.

    Attributes:
        utterance_id: Id of the utterance.
        path: Path or URL of the audio file.
        text: Transcript as read.
        speaker_id: Speaker; "" if unknown.
        time: Offset and duration in the list.
        place: File and line in messages; "" without a list file.
        channel: The only channel to hear, from 0; None = the mix of all.
        fields: Further fields of the list, such as the accent.
    """

    utterance_id: str
    path: str
    text: str
    speaker_id: str
    time: ListedTime = NO_TIME
    place: str = ""
    channel: int | None = None
    fields: Fields = ()


def stem(path: str) -> str:
    """Returns the name of a file without its suffix."""
    return PurePosixPath(os.path.basename(path)).stem


def suffix(path: str) -> str:
    """Returns the suffix of a file in lower case, with its dot."""
    return PurePosixPath(os.path.basename(path)).suffix.lower()


def may_be_padded(row: Row) -> bool:
    """Returns whether a recording may be compressed by an encoder that adds silence.

    An address does not say what it holds. A segment is not widened for that.
    """
    return suffix(row.path) in COMPRESSED_SUFFIXES or (
        row.time.offset_secs is None and parse_address(row.path) is not None
    )
