"""Makes rows of the records of a manifest, by the columns that hold audio, transcript, speaker and time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common import storage
from data.common.errors import InputError
from data.corpus.columns import AUDIO_COLUMNS, SPEAKER_COLUMNS, TEXT_COLUMNS
from data.corpus.faults import Fault, Report
from data.corpus.lhotse import is_cut
from data.corpus.records import Record
from data.corpus.segments import ListedTime, read_time
from data.corpus.slices import GroupFields
from data.corpus.utterance import Row, stem

_NOT_A_NUMBER = ("nan", "NaN")  # a missing cell as pandas writes it


def locate_rows(
    records: Iterable[Record], path: str, split: str, report: Report, *, needs_text: bool = True
) -> Iterator[Row]:
    """Yields the rows of a manifest, with their paths relative to its folder, or to the folder clips beside it.

    Args:
        records: Records of the manifest.
        path: The manifest.
        split: Keeps the records of this split; "" = all.
        report: Called with each record that cannot be used, which is left out when it returns.
        needs_text: Whether a record without a transcript is a fault.

    Raises:
        InputError: If no record belongs to the split.
    """
    if split:
        records = select_split(list(records), path, split)
    folder = os.path.dirname(path)
    # Common Voice keeps audio in clips/. Two listings, because behind a URL each check of a single file is a request.
    in_clips = set(storage.list_names(storage.join(folder, "clips") if folder else "clips"))
    in_clips -= set(storage.list_names(folder or ".")) if in_clips else set()
    for row in read_rows(records, report, needs_text=needs_text):
        yield row._replace(path=storage.join(folder, "clips" if row.path in in_clips else "", row.path))


def read_rows(records: Iterable[Record], report: Report, *, needs_text: bool = True) -> Iterator[Row]:
    """Yields the rows of records, with their paths as listed, and reports those that cannot be used."""
    groups = GroupFields()
    for record in records:
        row = read_row(record, needs_text=needs_text)
        if isinstance(row, Fault):
            report(row)
        else:
            yield row._replace(fields=groups.read(record.fields))


def read_row(record: Record, *, needs_text: bool) -> Row | Fault:
    """Reads a record, with its path as listed."""
    fields = record.fields
    audio, text = _field(fields, *AUDIO_COLUMNS), _field(fields, *TEXT_COLUMNS)
    utterance_id = _name(fields, "utterance_id")
    if not audio and is_cut(fields):
        return record.fault("is a cut of Lhotse, give format=lhotse")
    if not audio or audio in _NOT_A_NUMBER:
        return record.fault("has no audio_filepath, add it")
    if text is None and needs_text:
        return record.fault("has no text, add it", code="missing_transcript", key=utterance_id or stem(audio))
    try:
        time, channel = read_time(fields), _read_channel(fields)
    except ValueError as error:
        return record.fault(str(error))
    speaker_id = _name(fields, *SPEAKER_COLUMNS)
    return Row(utterance_id or _make_id(audio, time), audio, text or "", speaker_id, time, record.place, channel)


def _make_id(audio: str, time: ListedTime) -> str:
    """Returns the name of a file, for a segment of it with the start in milliseconds, which tells segments apart."""
    return f"{stem(audio)}-{round(time.offset_secs * 1000):07d}" if time.offset_secs else stem(audio)


def _read_channel(fields: Mapping[str, object]) -> int | None:
    text = (_field(fields, "audio_channel") or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"has audio_channel {text[:40]}: give the number of a channel, from 0")
    return int(text)


def select_split(records: Sequence[Record], path: str, split: str) -> list[Record]:
    """Returns the records of a split; raises InputError if there are none."""
    names = [_field(record.fields, "split") for record in records]
    found = {name for name in names if name}
    if split not in found:
        has = f"it has {', '.join(sorted(found)[:10])}" if found else "it names no splits"
        raise InputError(f"no split {split!r} in {path}: {has}")
    return [record for record, name in zip(records, names, strict=True) if name == split]


def _field(fields: Mapping[str, object], *names: str) -> str | None:
    """Returns the first of the named fields that is present, as text, because speakers often are numbers.

    NaN is a missing cell as pandas writes it, and is skipped.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if value is not None and not isinstance(value, list | dict | bool):
            return str(value)
    return None


def _name(fields: Mapping[str, object], *names: str) -> str:
    """Returns a field that holds a name; "" if it is missing or NaN."""
    value = _field(fields, *names) or ""
    return "" if value in _NOT_A_NUMBER else value
