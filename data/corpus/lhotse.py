"""Lists the utterances of Lhotse's cuts, JSON lines that are plain or compressed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from common import storage
from common.json_files import MalformedFileError, describe, field, optional_field
from common.near_files import describe_near
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.listed_paths import resolve_paths
from data.corpus.records import Record, iterate_json_records
from data.corpus.segments import ListedTime
from data.corpus.slices import GroupFields, cut_fields
from data.corpus.utterance import Row

_SUFFIXES = (".jsonl.gz", ".jsonl")
_SLACK_SECS = 0.05
_PAIR = "make cuts of recordings and supervisions with: lhotse cut simple -r RECORDINGS -s SUPERVISIONS CUTS.jsonl.gz"


class _Audio(NamedTuple):
    """The file of a recording, and which of its channels to hear; None = the mix of all."""

    path: str
    channel: int | None


def is_cut(fields: Mapping[str, Any]) -> bool:
    """Returns whether a JSON object is one of Lhotse's cuts."""
    return "supervisions" in fields or str(fields.get("type", "")).endswith("Cut")


def list_lhotse(path: str | os.PathLike[str], split: str, report: Report) -> tuple[str, list[Row]]:
    """Lists the utterances of a file of cuts, in its order.

    A cut with one supervision is an utterance, from the start of the cut to its end. Of a cut with several, each
    supervision is an utterance, named after the supervision. Relative paths count as in `data.corpus.kaldi`.

    Args:
        path: File of cuts (.jsonl, .jsonl.gz), or a folder with one.
        split: Split, which the name of a file in the folder ends with; "" if `path` is a file, or the folder has one.
        report: Called with each fault of a cut, which is left out when it returns.

    Returns:
        The file and its rows.

    Raises:
        InputError: If there is no such file, or it does not hold cuts.
    """
    located = _locate(os.fspath(path), split)
    rows: list[Row] = []
    groups = GroupFields()
    for record in iterate_json_records(located, report):
        try:
            rows += _read_cut(record, report, groups)
        except MalformedFileError as error:
            report(record.malformed(error))
    paths = resolve_paths([row.path for row in rows], storage.parent(located))
    return located, [row._replace(path=path) for row, path in zip(rows, paths, strict=True)]


def _locate(path: str, split: str) -> str:
    if storage.is_file(path):
        if split:
            raise InputError(f"{path} is one file, so it has no split {split!r}: give the folder, or no split")
        return path
    if not storage.is_dir(path):
        raise InputError(f"no file {path}: give the path of Lhotse's cuts{describe_near(path)}")
    names = [name for name in storage.list_names(path) if name.endswith(_SUFFIXES) and not name.startswith(".")]
    found = _select_cuts(names, split)
    if len(found) != 1:
        what = f"{'several files' if found else 'no file'} of cuts{f' of {split!r}' if split else ''}"
        has = ", ".join((found or names)[:10]) or "no .jsonl.gz"
        raise InputError(f"{what} in {path}: it has {has}; give the path of one file")
    return storage.join(path, found[0])


def _select_cuts(names: Sequence[str], split: str) -> list[str]:
    """Returns the files of cuts whose names end with a split, or else the file that is called like it."""
    stems = {name: name.removesuffix(".gz").removesuffix(".jsonl") for name in names}
    ending = f"_{split}" if split else ""
    cuts = [name for name, stem in stems.items() if "cuts" in name and stem.endswith(ending)]
    return cuts or [name for name, stem in stems.items() if stem == split]


def _read_cut(record: Record, report: Report, groups: GroupFields) -> Iterator[Row]:
    """Yields the rows of a cut, and reports its faults; raises MalformedFileError for values of another type."""
    cut, place = record.fields, record.place
    if what := _refuse_kind(cut):
        report(record.fault(what))
        return
    name = field(cut, "id", str, place)
    recording = field(cut, "recording", dict, place)
    if what := _refuse_recording(recording, place):
        report(record.fault(what, key=name))
        return
    spoken = [one for one in field(cut, "supervisions", list, place) if isinstance(one, dict)]
    texts = [one for one in spoken if isinstance(one.get("text"), str)]
    if not texts:
        report(record.fault("has no supervision with a text, add it", code="missing_transcript", key=name))
        return
    for one in texts:
        row = _read_supervision(record, one, groups, is_whole=len(spoken) == 1)
        if isinstance(row, Fault):
            report(row)
        else:
            yield row


def _read_supervision(record: Record, spoken: Mapping[str, Any], groups: GroupFields, *, is_whole: bool) -> Row | Fault:
    """Reads a supervision with a text; the only one of a cut is the whole cut and has its id."""
    cut, place = record.fields, record.place
    recording = field(cut, "recording", dict, place)
    key = field(cut if is_whole else spoken, "id", str, place)
    audio = _find_audio(find_channels(cut, spoken), recording, place)
    if isinstance(audio, str):
        return record.fault(audio, key=key)
    listed_secs = optional_field(recording, "duration", float, place, 0.0)
    try:
        time = read_cut_time(cut, spoken, place, is_whole=is_whole)
    except MalformedFileError:
        raise
    except ValueError as error:
        return record.fault(str(error), code="bad_segment", key=key)
    return Row(
        key,
        audio.path,
        spoken["text"],
        "" if spoken.get("speaker") is None else str(spoken["speaker"]),
        time._replace(recording_secs=listed_secs or None),
        place,
        audio.channel,
        groups.read(cut_fields(cut, spoken)),
    )


def _refuse_kind(cut: Mapping[str, Any]) -> str:
    """Returns why an object is no cut that can be read, "" if it is one."""
    kind = cut.get("type", "MonoCut")
    if "supervisions" not in cut and kind == "MonoCut":
        is_other = "recording_id" in cut or "sources" in cut
        return f"is no cut: {_PAIR}" if is_other else "is not a cut of Lhotse, correct the line or give another format"
    if kind not in ("MonoCut", "MultiCut", "Cut"):
        return f"is a {describe(kind)}, which is mixed or padded: save it with CutSet.save_audios and list those cuts"
    if not cut.get("recording"):
        return "has no recording: " + ("its features are not read, give the audio" if cut.get("features") else "add it")
    return ""


def _refuse_recording(recording: Mapping[str, Any], place: str) -> str:
    """Returns why a recording cannot be read, "" if it can."""
    for transform in optional_field(recording, "transforms", list, place, []) if recording.get("transforms") else []:
        name = transform.get("name", "") if isinstance(transform, dict) else ""
        if name != "Resample":  # audio is resampled to 16 kHz anyway
            return f"has audio that Lhotse alters when it reads it ({describe(name)}): save it with CutSet.save_audios"
    return ""


def find_channels(cut: Mapping[str, Any], spoken: Mapping[str, Any]) -> list[Any]:
    """Returns the channels to hear: those of the supervision among those of the cut."""
    of_cut, of_text = (
        channels if isinstance(channels := one.get("channel", 0), list) else [channels] for one in (cut, spoken)
    )
    return [channel for channel in of_cut if channel in of_text] or of_cut


def _find_audio(wanted: list[Any], recording: Mapping[str, Any], place: str) -> _Audio | str:
    """Returns the file that holds some channels of a recording, or what is wrong with it."""
    for source in field(recording, "sources", list, place):
        if not isinstance(source, dict):
            continue
        channels = field(source, "channels", list, place)
        if not all(one in channels for one in wanted):
            continue
        kind, path = source.get("type"), source.get("source")
        if kind not in ("file", "url") or not isinstance(path, str) or not path:
            return (
                f"has audio of the type {describe(kind)}, which is not read: save it to files with CutSet.save_audios"
            )
        if len(wanted) == len(channels):
            return _Audio(path, None)
        if len(wanted) == 1:
            return _Audio(path, channels.index(wanted[0]))
    return f"has channel {', '.join(map(describe, wanted[:4]))}, which no single file of its recording holds"


def read_cut_time(cut: Mapping[str, Any], spoken: Mapping[str, Any], place: str, *, is_whole: bool) -> ListedTime:
    """Returns where a supervision of a cut is in the recording; the whole cut for its only one.

    Raises:
        MalformedFileError: If a time is not a number.
        ValueError: If a time is wrong; the message continues one that begins with the line.
    """
    start, duration = optional_field(cut, "start", float, place, 0.0), field(cut, "duration", float, place)
    begin = optional_field(spoken, "start", float, place, 0.0)
    end = begin + optional_field(spoken, "duration", float, place, duration)
    if start < 0 or duration <= 0 or end <= begin or max(start, duration, end) > 10**9:
        raise ValueError("has a start or a duration that is impossible, correct the line")
    if begin < -_SLACK_SECS or end > duration + _SLACK_SECS:
        raise ValueError(
            f"has a text from {begin:g} s to {end:g} s in a cut of {duration:g} s: cut it again with "
            "keep_excessive_supervisions=False"
        )
    if not is_whole:
        begin, end = max(begin, 0.0), min(end, duration)
        start, duration = round(start + begin, 8), round(end - begin, 8)  # as Lhotse adds times
    return ListedTime(start, duration)
