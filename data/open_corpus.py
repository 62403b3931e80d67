"""Opens a corpus of any format as a `Source`."""

from __future__ import annotations

import os
from collections.abc import Collection

from data.common.errors import InputError
from data.corpus.faults import Report, nothing_left, refuse, remember
from data.corpus.manifest import MANIFEST_FORMATS, read_utterances
from data.corpus.sources import FileSource, Source
from data.shards.source import TFRecordSource

FORMATS = ("tfrecord", *MANIFEST_FORMATS)


def open_source(
    *,
    format: str,
    input: str | os.PathLike[str],
    split: str = "",
    speakers: Collection[str] = (),
    exclude_speakers: Collection[str] = (),
    text_column: str = "",
    on_rate_mismatch: str = "resample",
    report: Report = refuse,
) -> Source:
    """Opens a corpus.

    Args:
        format: One of `FORMATS`; all but tfrecord decode audio files on demand.
        input: Folder or file, as the format wants it.
        split: Part of the corpus; "" = all.
        speakers: Speakers to keep; empty = all.
        exclude_speakers: Speakers to drop.
        text_column: Key or column of the transcripts; "" = the known ones.
        on_rate_mismatch: "resample" or "refuse" audio files that are not sampled at 16 kHz (shards are).
        report: Called with each fault of single utterances, which are left out when it returns.

    Returns:
        A source of at least one utterance.

    Raises:
        InputError: If the corpus cannot be read, or no utterance is left.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
    if format == "tfrecord":
        if text_column:
            raise InputError(f"{os.fspath(input)}: shards hold one transcript each: leave text_column empty")
        return TFRecordSource(
            input=input,
            split=split,
            speakers=speakers,
            exclude_speakers=exclude_speakers,
            report=report,
        )
    faults, hear = remember(report)
    utterances = read_utterances(
        format=format,
        input=input,
        split=split,
        speakers=speakers,
        exclude_speakers=exclude_speakers,
        text_column=text_column,
        report=hear,
    )
    source = FileSource(utterances=utterances, on_rate_mismatch=on_rate_mismatch, report=hear)
    if not source.utterance_ids:
        raise nothing_left(input, faults)
    return source
