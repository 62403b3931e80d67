"""Lists the utterances of a data folder of Kaldi or ESPnet: wav.scp, text, and optionally segments and utt2spk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from common import storage
from common.near_files import describe_near
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.listed_paths import resolve_paths
from data.corpus.records import Record, read_text
from data.corpus.segments import NO_TIME, ListedTime, read_time
from data.corpus.slices import GroupFields
from data.corpus.utterance import Fields, Row

_WANTED = ("wav.scp", "text")
# Lists that put utterances or speakers into groups; the others count, or name what is read elsewhere.
_GROUP_LIST = re.compile(r"(utt|spk)2(?!spk|utt|dur|num_|uniq|shape)[a-z_]+")
_ARCHIVE = re.compile(r".:\d+(\[.*\])?$")


class _Line(NamedTuple):
    """A line of a list: what is behind its key, and the line itself for messages."""

    value: str
    record: Record


class _Part(NamedTuple):
    """An utterance as a segment of a recording, or the whole of it."""

    recording: str
    time: ListedTime
    channel: int | None
    record: Record


def list_kaldi(root: str | os.PathLike[str], split: str, report: Report) -> list[Row]:
    """Lists the utterances of ROOT/SPLIT in the order of segments, or else of wav.scp.

    wav.scp names a file for each recording; text has the transcripts. segments cuts utterances out of recordings, with
    an optional channel, counted from 0; without it each recording is an utterance. utt2spk, or else spk2utt, names
    speakers. utt2dur, utt2num_samples (ESPnet), reco2dur are compared with the files. Relative paths count from the
    folder, or from the first folder above it, or the current one, where they lead to a file.

    Args:
        root: Folder of the data folders, or one of them.
        split: Data folder; "" if `root` is one.
        report: Called with bad lines, utterances without audio and audio without a transcript, which are left out.

    Raises:
        InputError: If there is no such folder, or wav.scp or text is not in it.
    """
    folder = storage.join(root, split)
    if not storage.is_dir(folder):
        raise InputError(f"no folder {folder}: check the path{_list_sets(root)}{describe_near(folder)}")
    names = set(storage.list_names(folder))
    for name in _WANTED:
        if name not in names:
            raise InputError(f"no {name} in {folder}: give a folder with {' and '.join(_WANTED)}{_list_sets(folder)}")
    lists = _Lists(folder, names, report)
    texts = lists.read("text")
    recordings = lists.read("wav.scp")
    parts = _read_parts(lists, recordings)
    _report_unmatched(folder, parts, texts, recordings, report)
    paths = _read_paths(folder, recordings, parts, report)
    speakers = _read_speakers(lists)
    fields = _read_fields(lists, speakers)
    return [
        Row(
            name,
            paths[part.recording],
            texts[name].value,
            speakers.get(name, ""),
            part.time,
            part.record.place,
            part.channel,
            fields.get(name, ()),
        )
        for name, part in parts.items()
        if name in texts and part.recording in paths
    ]


class _Lists:
    """Reads the lists of a data folder, each line of which begins with a key."""

    def __init__(self, folder: str, names: Iterable[str], report: Report):
        self.folder = folder
        self.report = report
        self._names = set(names)

    def names_like(self, pattern: re.Pattern[str]) -> list[str]:
        """Returns the names of the lists that match a pattern."""
        return sorted(filter(pattern.fullmatch, self._names))

    def read(self, name: str) -> dict[str, _Line]:
        """Returns key -> line of a list, {} if it is absent; reports the lines whose key came before."""
        found: dict[str, _Line] = {}
        if name not in self._names:
            return found
        path = storage.join(self.folder, name)
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            key, *rest = line.split(maxsplit=1)[:2] or [""]
            record = Record(f"{path}:{number}", {}, line)
            if key in found:
                first = found[key].record.place.rpartition(":")[2]
                self.report(record.fault(f"has the id of line {first} again, give each its own", code="duplicate_id"))
            elif key:
                found[key] = _Line(rest[0].rstrip() if rest else "", record)
        return found

    def read_numbers(self, name: str, key: str) -> dict[str, ListedTime]:
        """Returns key -> time of a list of durations or numbers of samples, without the lines that are no number."""
        found: dict[str, ListedTime] = {}
        for item, (value, record) in self.read(name).items():
            time = _read_duration(value) if key == "duration" else _read_samples(value)
            if time.duration_secs is None and time.recording_samples is None:
                self.report(record.fault("has no number behind the id, correct the line"))
            else:
                found[item] = time
        return found


def _read_duration(value: str) -> ListedTime:
    try:
        return read_time({"duration": value})
    except ValueError:
        return NO_TIME


def _read_samples(value: str) -> ListedTime:
    is_count = value.isascii() and value.isdigit() and len(value) < 16
    return ListedTime(recording_samples=int(value)) if is_count else NO_TIME


def _read_parts(lists: _Lists, recordings: Mapping[str, _Line]) -> dict[str, _Part]:
    """Returns utterance id -> where its audio is, by segments, or by wav.scp without it."""
    segments = lists.read("segments")
    durations = lists.read_numbers("reco2dur", "duration")
    if not segments:
        durations |= lists.read_numbers("utt2dur", "duration")
        samples = lists.read_numbers("utt2num_samples", "num_samples")
        return {
            name: _Part(name, samples.get(name, durations.get(name, NO_TIME)), None, line.record)
            for name, line in recordings.items()
        }
    parts: dict[str, _Part] = {}
    for name, (value, record) in segments.items():
        try:
            parts[name] = _read_segment(value, record, durations)
        except ValueError as error:
            lists.report(record.fault(f"{error}, correct the line", code="bad_segment", key=name))
    return parts


def _read_segment(value: str, record: Record, durations: Mapping[str, ListedTime]) -> _Part:
    """Reads what a line of segments says of its utterance; raises ValueError if it is wrong."""
    recording, *cells = value.split() or [""]
    start, end, channel = _read_cells(cells)
    if start < 0 or (end <= start and end != -1) or (channel is not None and channel < 0):
        raise ValueError(f"has a segment from {start:g} s to {end:g} s" if end <= start else "has a negative number")
    duration = None if end == -1 else end - start  # -1 stands for the end of the recording
    fields = {"offset": str(start), "duration": duration if duration is None else str(duration)}
    time = read_time(fields)._replace(recording_secs=durations.get(recording, NO_TIME).duration_secs)
    return _Part(recording, time, channel, record)


def _read_cells(cells: Sequence[str]) -> tuple[Decimal, Decimal, int | None]:
    """Returns start, end and channel of a segment, None for the mix of all; raises ValueError if one is no number."""
    if len(cells) not in (2, 3):
        raise ValueError("is not an utterance, a recording, a start and an end in seconds")
    try:
        start, end = Decimal(cells[0]), Decimal(cells[1])
        channel = None if len(cells) == 2 or cells[2] == "-1" else int(cells[2])
    except (InvalidOperation, ValueError) as error:
        raise ValueError("has a start, an end or a channel that is no number") from error
    if not (start.is_finite() and end.is_finite()) or max(abs(start), abs(end)) > 10**12:
        raise ValueError("has a start or an end that is no number of seconds")
    if channel is not None and channel >= 10**6:
        raise ValueError("has a channel that no recording has")
    return start, end, channel


def _report_unmatched(
    folder: str, parts: Mapping[str, _Part], texts: Mapping[str, _Line], recordings: Mapping[str, _Line], report: Report
) -> None:
    """Reports utterances without a transcript, a recording or a segment, a fault for each kind."""
    lists = "segments" if any(part.recording != name for name, part in parts.items()) else "wav.scp"
    silent = {name: part.record for name, part in parts.items() if name not in texts}
    absent = {name: part.record for name, part in parts.items() if part.recording not in recordings}
    unheard = {name: line.record for name, line in texts.items() if name not in parts}
    _report_lines(report, "missing_transcript", silent, len(parts), f"has no transcript in {folder}/text, add it")
    _report_lines(report, "missing_audio", absent, len(parts), f"has a recording that {folder}/wav.scp lacks, add it")
    _report_lines(report, "missing_audio", unheard, len(texts), f"has an utterance that {folder}/{lists} lacks, add it")


def _report_lines(report: Report, code: str, records: Mapping[str, Record], total: int, what: str) -> None:
    """Reports the lines of utterances, by id, that have the same fault."""
    if not records:
        return
    faults = {name: record.fault(what, code=code, key=name).message for name, record in records.items()}
    first = next(iter(faults.values()))
    count = f" ({len(records)} of {total} lines are so)" if len(records) > 1 else ""
    report(Fault(code, f"{first}{count}", faults))


def _read_paths(
    folder: str, recordings: Mapping[str, _Line], parts: Mapping[str, _Part], report: Report
) -> dict[str, str]:
    """Returns recording -> path of its file; reports the utterances of the recordings that are no files."""
    bad = {name: what for name, (value, _) in recordings.items() if (what := _refuse_path(value))}
    for what in dict.fromkeys(bad.values()):
        lost = {
            name: recordings[part.recording].record for name, part in parts.items() if bad.get(part.recording) == what
        }
        _report_lines(report, "bad_record", lost, len(parts), what)
    files = {name: line.value for name, line in recordings.items() if name not in bad}
    return dict(zip(files, resolve_paths(files.values(), folder), strict=True))


def _refuse_path(value: str) -> str:
    """Returns what is wrong with the path of a recording, "" if nothing is."""
    if not value:
        return "has no file behind the id, add it"
    if value.endswith("|") or value.startswith("|"):
        return "is a command, which is not run: run it once and list the file that it writes"
    if _ARCHIVE.search(value) and not storage.is_remote(value):
        return "is a place in an archive, which is not read: list an audio file"
    return ""


def _read_speakers(lists: _Lists) -> dict[str, str]:
    """Returns utterance id -> speaker, by utt2spk, or by spk2utt without it."""
    speakers: dict[str, str] = {}
    for name, (value, record) in lists.read("utt2spk").items():
        if len(value.split()) == 1:
            speakers[name] = value
        else:
            lists.report(record.fault("is not an utterance and its speaker, correct the line"))
    if not speakers:
        for speaker, (value, _) in lists.read("spk2utt").items():
            speakers.update(dict.fromkeys(value.split(), speaker))
    return speakers


def _read_fields(lists: _Lists, speakers: Mapping[str, str]) -> dict[str, Fields]:
    """Returns utterance id -> what lists such as utt2lang and spk2gender say, by the names behind the 2."""
    found: dict[str, dict[str, object]] = {}
    for name in lists.names_like(_GROUP_LIST):
        kind, group = name.split("2", maxsplit=1)
        values = {key: line.value for key, line in lists.read(name).items()}
        keys = speakers if kind == "spk" else {key: key for key in values}
        for utterance_id, key in keys.items():
            if key in values:
                found.setdefault(utterance_id, {})[group] = values[key]
    groups = GroupFields()
    return {name: groups.read(fields) for name, fields in found.items()}


def _list_sets(root: str | os.PathLike[str]) -> str:
    """Returns the data folders in a folder, for messages; "" if there are none."""
    names = sorted(path.split("/")[-2] for path in storage.glob(root, "*/wav.scp")) if storage.is_dir(root) else []
    return f"; {os.fspath(root)} has the splits {', '.join(names[:10])}" if names else ""
