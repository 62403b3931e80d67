"""Locates the segment of a recording that `offset` and `duration` of a manifest describe, and checks it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

# Smaller differences are no contradiction: durations are rounded, and encoders pad.
_SLACK_SECS = 0.05
_LOSSY_SLACK_SECS = 0.3  # encoder delay and last block of an MP3 at 16 kHz
_MANY_TIMES = 900.0  # a duration about a thousand times too long is in milliseconds


class ListedTime(NamedTuple):
    """Offset and duration of a line of a manifest.

    Attributes:
        offset_secs: Start of the utterance in its recording; None if the line has no offset.
        duration_secs: Duration of the utterance; None if the line has none.
        unit_secs: One unit of the duration's last digit, the largest error of rounding.
        recording_secs: Duration of the whole recording by the list; None if it does not say.
        recording_samples: Samples of the whole recording by the list; None if it does not say.
    """

    offset_secs: float | None = None
    duration_secs: float | None = None
    unit_secs: float = 0.0
    recording_secs: float | None = None
    recording_samples: int | None = None


class Segment(NamedTuple):
    """A segment of a recording.

    Attributes:
        start: First sample at the file's rate; None for the whole file.
        num_samples: Number of samples.
        conflict: How the listed duration contradicts the file; "" if it does not.
    """

    start: int | None
    num_samples: int
    conflict: str = ""


NO_TIME = ListedTime()


def read_time(record: Mapping[str, object]) -> ListedTime:
    """Reads `offset` and `duration` in seconds, as numbers or text, or else the difference of `end` and `start`.

    null, NaN (as pandas writes it) and an empty cell count as absent, and so does a duration that is not a number where
    there is no offset. `start` and `end` only serve to check the length of the file.

    Raises:
        ValueError: If a value is wrong; the message continues one that begins with the line.
    """
    offset, _ = _number(record, "offset")
    if offset is not None and offset < 0:
        raise ValueError(f"has offset {offset:g}: give seconds from the beginning of the file")
    duration, unit = _number(record, "duration", strict=offset is not None)
    if offset is not None and duration is not None and duration <= 0:
        raise ValueError(f"has duration {duration:g}: give the seconds of the segment")
    if duration is None and offset is None and not record.keys().isdisjoint(("end", "end_time")):
        return ListedTime(None, _end_less_start(record), 0.0)
    return ListedTime(offset, duration, unit)


def _end_less_start(record: Mapping[str, object]) -> float | None:
    """Returns the length of a segment, or of a file that was cut from a longer one, by its start and end."""
    for start_key, end_key in (("start", "end"), ("start_time", "end_time"), ("begin", "end")):
        try:
            start, end = _number(record, start_key, strict=True)[0], _number(record, end_key, strict=True)[0]
        except ValueError:
            continue
        if start is not None and end is not None and end > start >= 0:
            return end - start
    return None


def find_segment(time: ListedTime, *, num_samples: int, sample_rate: int, is_lossy: bool = False) -> Segment:
    """Locates an utterance in its recording.

    Args:
        time: Offset and duration of the manifest.
        num_samples: Samples of the recording.
        sample_rate: Rate of the recording in Hz.
        is_lossy: Whether the file is an MP3, whose encoder adds silence.

    Returns:
        The segment, or the whole file if the manifest has no offset or the segment covers the file up to rounding.

    Raises:
        ValueError: If the segment is outside the recording; the message continues one that begins with the line.
    """
    file_secs = num_samples / sample_rate
    slack = max(_SLACK_SECS, _LOSSY_SLACK_SECS if is_lossy else 0.0)
    conflict = _find_conflict(time.recording_secs, 0.0, file_secs, slack)
    listed = time.recording_samples
    if not conflict and listed is not None and abs(listed - num_samples) > slack * sample_rate:
        conflict = f"{listed} samples listed, {num_samples} in the file"
    if time.offset_secs is None:
        conflict = conflict or _find_conflict(time.duration_secs, time.unit_secs, file_secs, slack)
        return Segment(None, num_samples, conflict)
    end_secs = file_secs if time.duration_secs is None else time.offset_secs + time.duration_secs
    if time.offset_secs >= file_secs or end_secs > file_secs + max(slack, time.unit_secs):
        raise ValueError(
            f"has a segment from {time.offset_secs:g} s to {max(time.offset_secs, end_secs):g} s in a recording of "
            f"{file_secs:g} s: give offset and duration in seconds within this file"
        )
    start = min(round(time.offset_secs * sample_rate), num_samples - 1)
    length = max(1, min(round((end_secs - time.offset_secs) * sample_rate), num_samples - start))
    if start == 0 and file_secs - end_secs <= slack:
        return Segment(None, num_samples, conflict)
    return Segment(start, length, conflict)


def _find_conflict(listed: float | None, unit_secs: float, file_secs: float, slack: float) -> str:
    """Returns how a listed duration contradicts that of a whole file; "" if it does not."""
    if listed is None:
        return ""
    off = abs(listed - file_secs)
    return "" if off <= slack or off < unit_secs else _describe(listed, file_secs)


def _number(record: Mapping[str, object], key: str, *, strict: bool = False) -> tuple[float | None, float]:
    """Returns a value in seconds, or None if there is none, and one unit of its last digit."""
    value = record.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, 0.0
    if isinstance(value, float) and 1e-3 <= value < 1e9:  # the usual case; Decimal takes five times as long
        return value, 10.0 ** -len(repr(value).partition(".")[2])
    return _parse_number(value, key, strict=strict)


def _parse_number(value: object, key: str, *, strict: bool) -> tuple[float | None, float]:
    wrong = ValueError(f"has {key} {_short(value)}: give seconds as a number")
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise wrong
    try:
        number = Decimal(str(value).strip() or "NaN")
    except InvalidOperation as error:
        if key == "duration" and not strict:
            return None, 0.0  # such as "0:02"; the header decides
        raise wrong from error
    if number.is_nan():
        return None, 0.0
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(number) > 10**12:  # infinite, or longer than any recording
        raise wrong
    return float(number), float(Decimal(1).scaleb(min(exponent, 0)))


def _describe(listed: float, actual: float) -> str:
    hint = ", milliseconds?" if listed > _MANY_TIMES * actual else ""
    return f"{listed:g} s listed, {actual:g} s in the file{hint}"


def _short(value: object) -> str:
    text = str(value) if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
    text = " ".join(text[:200].split())
    return text if len(text) <= 40 else f"{text[:40]}..."
