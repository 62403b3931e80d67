"""Lists of utterances: LibriSpeech tree, JSON-lines manifest, CSV and TSV table.

Whatever is wrong with a corpus raises `InputError` with the file, and the line where there is one;
so do a transcript without audio and audio without a transcript. Who wants to hear of every fault
gives `read_utterances` a `report` of its own and gets what is left. Manifests and audio may be local
or behind URLs such as gs://.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from common import storage
from common.near_files import FileFinder, describe_near
from data.audio.decoding import read_header
from data.common.errors import InputError
from data.common.files import write_text_atomic
from data.corpus.faults import Fault, Report, refuse
from data.corpus.rows import (
    AUDIO_COLUMNS,
    TEXT_COLUMNS,
    Record,
    read_json_records,
    read_table_records,
    read_text,
)
from data.corpus.segments import NO_TIME, ListedTime, find_segment, read_time

MANIFEST_FORMATS = ("librispeech", "jsonl", "csv", "tsv")
_LIBRISPEECH_AUDIO = (".flac", ".wav")
_HEADER_THREADS = 8
_REMOTE_HEADER_THREADS = 32
_NUM_DESCRIBED = 10  # absent files for which one that lies near is looked for
_NOT_A_NUMBER = ("nan", "NaN")  # a missing cell as pandas turns it into text; as a whole name it is none


@dataclass(frozen=True)
class Utterance:
    """One recording and its transcript.

    Attributes:
        utterance_id: unique within its list.
        audio_filepath: path that opens from the current folder, or a URL.
        text: the transcript as read, not normalized.
        num_samples: length per channel, at `sample_rate`.
        sample_rate: the file's own rate in Hz.
        speaker_id: "" where unknown.
        start: first sample of a segment, at `sample_rate`; None where the utterance is the whole file.
        duration_conflict: how the duration in the manifest contradicts the file; "" where it does not.
    """

    utterance_id: str
    audio_filepath: str
    text: str
    num_samples: int
    sample_rate: int
    speaker_id: str = ""
    start: int | None = None
    duration_conflict: str = ""

    @property
    def duration_secs(self) -> float:
        return self.num_samples / self.sample_rate


class _Row(NamedTuple):
    """An utterance before its header is read."""

    utterance_id: str
    path: str
    text: str
    speaker_id: str
    time: ListedTime = NO_TIME
    place: str = ""


def read_librispeech(root: str | os.PathLike[str], split: str = "") -> list[Utterance]:
    """Reads ROOT/SPLIT/SPEAKER/CHAPTER/*.trans.txt and the audio files beside them.

    Args:
        root: the folder that holds the splits.
        split: the split's folder; "" where `root` itself is the split.

    Returns:
        The utterances, sorted by id; `speaker_id` is the speaker's folder.
    """
    return _read_headers(_list_librispeech(root, split, refuse), storage.join(root, split), refuse)


def _list_librispeech(root: str | os.PathLike[str], split: str, report: Report) -> list[_Row]:
    folder = storage.join(root, split)
    if not storage.is_dir(folder):
        raise InputError(f"no folder {folder}: check the path{_list_splits(root) or describe_near(folder)}")
    transcripts: list[tuple[str, str, str]] = []
    for trans_path in _visible(storage.glob(folder, "*/*/*.trans.txt")):
        for line in read_text(trans_path).splitlines():
            if line.strip():
                utterance_id, _, text = line.strip().partition(" ")
                transcripts.append((utterance_id, text.strip(), os.path.dirname(trans_path)))
    if not transcripts:
        raise InputError(
            f"no SPEAKER/CHAPTER/*.trans.txt under {folder}: give the folder of one split{_list_splits(root)}"
        )
    audio = {
        (os.path.dirname(path), _stem(path)): path
        for path in _visible(storage.glob(folder, "*/*/*"))
        if _suffix(path) in _LIBRISPEECH_AUDIO
    }
    without_audio = [key for key, _, parent in transcripts if (parent, key) not in audio]
    if without_audio:
        parent = next(parent for key, _, parent in transcripts if key == without_audio[0])
        wanted = storage.join(parent, f"{without_audio[0]}.flac")
        near = "" if storage.is_remote(folder) else FileFinder(folder).describe(wanted)
        report(
            Fault(
                "missing_audio",
                f"{len(without_audio)} of {len(transcripts)} transcripts under {folder} have no "
                f"audio, first {without_audio[0]}: fetch the split again{near}",
                dict.fromkeys(without_audio, "a transcript without an audio file"),
            )
        )
    rows = [
        _Row(utterance_id, audio[parent, utterance_id], text, os.path.basename(os.path.dirname(parent)))
        for utterance_id, text, parent in transcripts
        if (parent, utterance_id) in audio
    ]
    without_text = sorted(set(audio.values()) - {row.path for row in rows})
    if without_text:
        report(
            Fault(
                "missing_transcript",
                f"{len(without_text)} of {len(audio)} audio files under {folder} have no "
                f"transcript, first {without_text[0]}: fetch the split again",
                {_stem(path): f"{path} has no transcript" for path in without_text},
            )
        )
    return sorted(rows)


def read_jsonl(path: str | os.PathLike[str], split: str = "") -> list[Utterance]:
    """Reads a manifest of one JSON object a line.

    Keys: `audio_filepath` (relative to the manifest's folder) and `text`; optional `offset` and
    `duration` in seconds, `utterance_id` (default: the file's name without its suffix, and where the
    segment begins), `speaker` or `speaker_id`, and `split`. With an `offset` the utterance is
    `duration` seconds of the file from there, without a `duration` all that follows. Without an
    `offset` it is the whole file, whatever the `duration`.

    Args:
        path: the manifest, or a folder that holds SPLIT.jsonl.
        split: keep the lines whose `split` is this; "" keeps every line.

    Returns:
        The utterances in the manifest's order.
    """
    path, rows = _list_jsonl(path, split, refuse)
    return _read_headers(rows, path, refuse)


def _list_jsonl(path: str | os.PathLike[str], split: str, report: Report) -> tuple[str, list[_Row]]:
    path, split = _locate(path, split, ".jsonl")
    return path, list(_rows_of(read_json_records(path, report), path, split, report))


def read_table(path: str | os.PathLike[str], split: str = "", *, delimiter: str = "") -> list[Utterance]:
    """Reads a table with a header line.

    Columns: `audio_filepath` or `path`, `text` or `sentence`; optional `offset` and `duration` as in
    `read_jsonl`, `utterance_id`, `speaker`, `speaker_id` or `client_id`, and `split`. Paths are
    relative to the table's folder or, as in Common Voice, to the folder `clips` beside it.

    Args:
        path: the table, or a folder that holds SPLIT.csv (SPLIT.tsv where `delimiter` is a tab).
        split: keep the rows whose `split` is this; "" keeps every row.
        delimiter: "," or a tab; "" goes by the suffix, .tsv or any other.

    Returns:
        The utterances in the table's order.
    """
    path, rows = _list_table(path, split, delimiter, refuse)
    return _read_headers(rows, path, refuse)


def _list_table(path: str | os.PathLike[str], split: str, delimiter: str, report: Report) -> tuple[str, list[_Row]]:
    path, split = _locate(path, split, ".tsv" if delimiter == "\t" else ".csv")
    delimiter = delimiter or ("\t" if _suffix(path) == ".tsv" else ",")
    return path, list(_rows_of(read_table_records(path, delimiter, report), path, split, report))


def write_jsonl(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Writes a manifest for `read_jsonl`, atomically; audio paths are relative to its folder."""
    folder = os.path.dirname(path if storage.is_remote(path) else os.path.abspath(path))
    lines = [
        json.dumps(
            {
                "audio_filepath": _relative(utterance.audio_filepath, folder),
                "text": utterance.text,
                **_time_fields(utterance),
                "utterance_id": utterance.utterance_id,
                "speaker": utterance.speaker_id,
            },
            ensure_ascii=False,
        )
        for utterance in utterances
    ]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


def _time_fields(utterance: Utterance) -> dict[str, float]:
    if utterance.start is None:
        return {"duration": round(utterance.duration_secs, 4)}
    # In full: the same samples are to be read again.
    return {"offset": utterance.start / utterance.sample_rate, "duration": utterance.duration_secs}


def read_utterances(
    *,
    format: str,
    input: str | os.PathLike[str],
    split: str = "",
    speakers: Collection[str] = (),
    exclude_speakers: Collection[str] = (),
    report: Report = refuse,
) -> list[Utterance]:
    """Reads a corpus in any of `MANIFEST_FORMATS`.

    Args:
        format: librispeech, jsonl, csv or tsv.
        input: folder or file, as the format wants it.
        split: a part of the corpus; "" for all.
        speakers: keep these speakers alone; empty keeps all.
        exclude_speakers: then drop these.
        report: hears of each fault of single utterances, which are left out when it returns; the
            files of dropped speakers are not looked at.

    Returns:
        At least one utterance, unless `report` let every one pass as faulty.

    Raises:
        InputError: also where a named speaker is absent or nothing is left.
    """
    faults: list[Fault] = []

    def hear(fault: Fault) -> None:
        faults.append(fault)
        report(fault)

    where, rows = _list_rows(format, input, split, hear)
    if faults and not rows:
        raise InputError(f"no utterance of {where} can be used: {faults[0].message}", code=faults[0].code)
    kept = select_speakers(
        [row.speaker_id for row in rows],
        speakers=speakers,
        exclude_speakers=exclude_speakers,
        where=str(input),
    )
    return _read_headers([rows[index] for index in kept], where, report)


def list_audio(*, format: str, input: str | os.PathLike[str], report: Report = refuse) -> list[str]:
    """Paths of all audio that a corpus lists, of every split and speaker, whether the files exist or not."""
    return [row.path for row in _list_rows(format, input, "", report)[1]]


def _list_rows(format: str, input: str | os.PathLike[str], split: str, report: Report) -> tuple[str, list[_Row]]:
    """The corpus' folder or file, and its rows, in any of `MANIFEST_FORMATS`."""
    if format == "librispeech":
        return storage.join(input, split), _list_librispeech(input, split, report)
    if format == "jsonl":
        return _list_jsonl(input, split, report)
    if format in ("csv", "tsv"):
        return _list_table(input, split, "\t" if format == "tsv" else ",", report)
    raise InputError(f"unknown format {format!r}: use one of {', '.join(MANIFEST_FORMATS)}")


def select_speakers(
    speaker_ids: Sequence[str],
    *,
    speakers: Collection[str] = (),
    exclude_speakers: Collection[str] = (),
    where: str,
) -> list[int]:
    """Indices of the utterances that `read_utterances` keeps of `speaker_ids`, one per utterance.

    Raises:
        InputError: a named speaker is absent from `where`, or nothing is left.
    """
    known = set(speaker_ids)
    absent = sorted((set(speakers) | set(exclude_speakers)) - known)
    if absent:
        names = sorted(known - {""})
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise InputError(f"no speaker {absent[0]!r} in {where}: it has {shown or 'no speakers'}")
    wanted = (set(speakers) or known) - set(exclude_speakers)
    kept = [index for index, speaker in enumerate(speaker_ids) if speaker in wanted]
    if not kept:
        raise InputError(f"no utterances left in {where}: check the split and the speakers")
    return kept


def _locate(path: str | os.PathLike[str], split: str, suffix: str) -> tuple[str, str]:
    """The manifest to read and the split still to select from it."""
    located = os.fspath(path)
    if split and storage.is_dir(located):
        located, split = storage.join(located, f"{split}{suffix}"), ""
    if not storage.is_file(located):
        raise InputError(f"no manifest {located}: give the path of a file{describe_near(located)}")
    return located, split


def _rows_of(records: Sequence[Record], path: str, split: str, report: Report) -> Iterator[_Row]:
    if split:
        splits = [_field(record.fields, "split") for record in records]
        found = {name for name in splits if name}
        if split not in found:
            has = f"it has {', '.join(sorted(found)[:10])}" if found else "it names no splits"
            raise InputError(f"no split {split!r} in {path}: {has}")
        records = [record for record, name in zip(records, splits, strict=True) if name == split]
    folder = os.path.dirname(path)
    # Common Voice. Two listings, for behind a URL each look at a single file is a request.
    in_clips = set(storage.list_names(storage.join(folder, "clips") if folder else "clips"))
    in_clips -= set(storage.list_names(folder or ".")) if in_clips else set()
    for record in records:
        fields = record.fields
        audio, text = _field(fields, *AUDIO_COLUMNS), _field(fields, *TEXT_COLUMNS)
        if not audio or audio in _NOT_A_NUMBER:
            report(record.fault("has no audio_filepath, add it"))
            continue
        utterance_id = _name(fields, "utterance_id")
        if text is None:
            report(record.fault("has no text, add it", code="missing_transcript", key=utterance_id or _stem(audio)))
            continue
        try:
            time = read_time(fields)
        except ValueError as error:
            report(record.fault(str(error)))
            continue
        audio_path = storage.join(folder, "clips" if audio in in_clips else "", audio)
        # Segments of one file share its name; where each begins, in milliseconds, tells them apart.
        part = f"-{round(time.offset_secs * 1000):07d}" if time.offset_secs else ""
        yield _Row(
            utterance_id=utterance_id or f"{_stem(audio_path)}{part}",
            path=audio_path,
            text=text,
            speaker_id=_name(fields, "speaker", "speaker_id", "client_id"),
            time=time,
            place=record.place,
        )


def _field(fields: Mapping[str, object], *names: str) -> str | None:
    """Returns the first of the named fields that is there, as text: numbers are common speaker names.

    NaN is what pandas makes of a missing cell, and no word.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if value is not None and not isinstance(value, list | dict | bool):
            return str(value)
    return None


def _name(fields: Mapping[str, object], *names: str) -> str:
    """Returns a field that names something; "" where it is missing, also as programs write that into a table."""
    value = _field(fields, *names) or ""
    return "" if value in _NOT_A_NUMBER else value


def _stem(path: str) -> str:
    """The file's name without its suffix."""
    return PurePosixPath(os.path.basename(path)).stem


def _visible(paths: Iterable[str]) -> list[str]:
    """The paths without hidden files: macOS puts a ._NAME beside each NAME."""
    return [path for path in paths if not os.path.basename(path).startswith(".")]


def _suffix(path: str) -> str:
    return PurePosixPath(os.path.basename(path)).suffix.lower()


def _relative(path: str, folder: str) -> str:
    """A path as a manifest in `folder` names it; across file systems there is no way but the whole."""
    if storage.is_remote(path) and path.startswith(f"{folder}/"):
        return path[len(folder) + 1 :]
    if storage.is_remote(path):
        return path
    return os.path.abspath(path) if storage.is_remote(folder) else os.path.relpath(path, folder)


def _read_headers(rows: Iterable[_Row], where: str, report: Report) -> list[Utterance]:
    """Completes the rows with their headers; the threads hide the latency of a network disk."""
    rows = list(rows)
    counts = Counter(row.utterance_id for row in rows)
    repeated = {name: f"{count} times" for name, count in counts.items() if count > 1}
    if repeated:
        report(
            Fault(
                "duplicate_id",
                f"{len(repeated)} utterance ids occur more than once in {where}, first "
                f"{next(iter(repeated))!r}: give every utterance its own utterance_id",
                repeated,
            )
        )
        rows = list({row.utterance_id: row for row in reversed(rows)}.values())[::-1]

    finder = FileFinder("" if storage.is_remote(where) else _folder_of(where))
    num_described = 0

    def header_or_error(path: str) -> tuple[int, int] | InputError:
        try:
            return read_header(path)
        except InputError as error:
            return error
        except (OSError, ValueError, RuntimeError) as error:  # a URL of no known kind, a name with a NUL
            return InputError(f"cannot read {path} ({error}): check the path")

    paths = list(dict.fromkeys(row.path for row in rows))
    is_remote = any(storage.is_remote(path) for path in paths)
    with ThreadPoolExecutor(_REMOTE_HEADER_THREADS if is_remote else _HEADER_THREADS) as pool:
        answers = pool.map(header_or_error, paths)
        bar = tqdm(answers, desc="headers", total=len(paths), unit="file", delay=2.0, disable=None)
        headers = dict(zip(paths, bar, strict=True))
    errors: dict[str, InputError] = {}
    utterances: list[Utterance] = []
    for row in rows:
        header = headers[row.path]
        if isinstance(header, InputError):
            if header.code == "missing_audio" and num_described < _NUM_DESCRIBED and not storage.is_remote(row.path):
                num_described += 1
                header = InputError(f"{header}{finder.describe(row.path)}", code=header.code)
            errors[row.utterance_id] = header
            continue
        num_samples, sample_rate = header
        try:
            segment = find_segment(
                row.time, num_samples=num_samples, sample_rate=sample_rate, is_lossy=_suffix(row.path) == ".mp3"
            )
        except ValueError as error:
            errors[row.utterance_id] = InputError(f"{row.place} {error}", code="bad_segment")
            continue
        utterances.append(
            Utterance(
                row.utterance_id,
                row.path,
                row.text,
                segment.num_samples,
                sample_rate,
                row.speaker_id,
                start=segment.start,
                duration_conflict=segment.conflict,
            )  # fmt: skip
        )
    for code in dict.fromkeys(error.code for error in errors.values()):
        details = {name: str(error) for name, error in errors.items() if error.code == code}
        count = f" ({len(errors)} of {len(rows)} files fail)" if len(errors) > 1 else ""
        report(Fault(code or "unreadable_audio", f"{next(iter(details.values()))}{count}", details))
    return utterances


def _folder_of(path: str) -> str:
    return path if os.path.isdir(path) else os.path.dirname(path) or "."


def _list_splits(root: str | os.PathLike[str]) -> str:
    """The splits under a corpus root, for the end of an error message."""
    found = storage.glob(root, "*/*/*/*.trans.txt")
    splits = sorted({path.split("/")[-4] for path in found})
    return f"; {root} has the splits {', '.join(splits[:10])}" if splits else ""
