"""Lists of utterances: LibriSpeech tree, JSON-lines manifest, CSV and TSV table.

Whatever is wrong with a corpus raises `InputError` with the file, and the line where there is one;
so do a transcript without audio and audio without a transcript. Who wants to hear of every fault
gives `read_utterances` a `report` of its own and gets what is left. Manifests and audio may be local
or behind URLs such as gs://.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from data import storage
from data.audio import read_header
from data.errors import InputError
from data.faults import Fault, Report, refuse
from data.files import write_text_atomic

MANIFEST_FORMATS = ("librispeech", "jsonl", "csv", "tsv")
_LIBRISPEECH_AUDIO = (".flac", ".wav")
_HEADER_THREADS = 8
_REMOTE_HEADER_THREADS = 32


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
    """

    utterance_id: str
    audio_filepath: str
    text: str
    num_samples: int
    sample_rate: int
    speaker_id: str = ""

    @property
    def duration_secs(self) -> float:
        return self.num_samples / self.sample_rate


class _Row(NamedTuple):
    """An utterance before its header is read."""

    utterance_id: str
    path: str
    text: str
    speaker_id: str


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
        raise InputError(f"no folder {folder}: check the path{_list_splits(root)}")
    transcripts: list[tuple[str, str, str]] = []
    for trans_path in _visible(storage.glob(folder, "*/*/*.trans.txt")):
        for line in _read_text(trans_path).splitlines():
            if line.strip():
                utterance_id, _, text = line.strip().partition(" ")
                transcripts.append((utterance_id, text.strip(), os.path.dirname(trans_path)))
    if not transcripts:
        raise InputError(
            f"no SPEAKER/CHAPTER/*.trans.txt under {folder}: give the folder of one split"
            f"{_list_splits(root)}"
        )
    audio = {
        (os.path.dirname(path), _stem(path)): path
        for path in _visible(storage.glob(folder, "*/*/*"))
        if _suffix(path) in _LIBRISPEECH_AUDIO
    }
    without_audio = [key for key, _, parent in transcripts if (parent, key) not in audio]
    if without_audio:
        report(
            Fault(
                "missing_audio",
                f"{len(without_audio)} of {len(transcripts)} transcripts under {folder} have no "
                f"audio, first {without_audio[0]}: fetch the split again",
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

    Keys: `audio_filepath` (relative to the manifest's folder) and `text`; optional `duration` in
    seconds (the header decides), `utterance_id` (default: the file's name without its suffix),
    `speaker` or `speaker_id`, and `split`.

    Args:
        path: the manifest, or a folder that holds SPLIT.jsonl.
        split: keep the lines whose `split` is this; "" keeps every line.

    Returns:
        The utterances in the manifest's order.
    """
    path, rows = _list_jsonl(path, split, refuse)
    return _read_headers(rows, path, refuse)


def _list_jsonl(
    path: str | os.PathLike[str], split: str, report: Report
) -> tuple[str, list[_Row]]:
    path, split = _locate(path, split, ".jsonl")
    records: list[tuple[int, Mapping[str, object]]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            report(_bad_record(path, number, f"is not JSON ({error.msg}): mend the line"))
            continue
        if not isinstance(record, dict):
            report(_bad_record(path, number, "is not a JSON object: mend the line"))
            continue
        duration = record.get("duration", 0.0)
        if isinstance(duration, bool) or not isinstance(duration, int | float):
            what = f"has duration {duration!r}: give seconds as a number"
            report(_bad_record(path, number, what))
            continue
        records.append((number, record))
    return path, list(_rows_of(records, path, split, report))


def read_table(
    path: str | os.PathLike[str], split: str = "", *, delimiter: str = ""
) -> list[Utterance]:
    """Reads a table with a header line.

    Columns: `audio_filepath` or `path`, `text` or `sentence`; optional `utterance_id`, `speaker`,
    `speaker_id` or `client_id`, and `split`. Paths are relative to the table's folder or, as in
    Common Voice, to the folder `clips` beside it.

    Args:
        path: the table, or a folder that holds SPLIT.csv (SPLIT.tsv where `delimiter` is a tab).
        split: keep the rows whose `split` is this; "" keeps every row.
        delimiter: "," or a tab; "" goes by the suffix, .tsv or any other.

    Returns:
        The utterances in the table's order.
    """
    path, rows = _list_table(path, split, delimiter, refuse)
    return _read_headers(rows, path, refuse)


def _list_table(
    path: str | os.PathLike[str], split: str, delimiter: str, report: Report
) -> tuple[str, list[_Row]]:
    path, split = _locate(path, split, ".tsv" if delimiter == "\t" else ".csv")
    delimiter = delimiter or ("\t" if _suffix(path) == ".tsv" else ",")
    text = io.StringIO(_read_text(path), newline="")
    if delimiter == "\t":  # Common Voice writes quotation marks bare: they belong to the sentence
        reader = csv.DictReader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    records: list[tuple[int, Mapping[str, object]]] = []
    try:
        for record in reader:
            if None in record or None in record.values():
                what = "has too few or too many columns: mend it"
                report(_bad_record(path, reader.line_num, what))
                continue
            records.append((reader.line_num, record))
    except csv.Error as error:
        # Where a quotation mark never ends there is no next row to go on with.
        report(_bad_record(path, reader.line_num, f"is malformed ({error}): mend it"))
    return path, list(_rows_of(records, path, split, report))


def write_jsonl(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Writes a manifest for `read_jsonl`, atomically; audio paths are relative to its folder."""
    folder = os.path.dirname(path if storage.is_remote(path) else os.path.abspath(path))
    lines = [
        json.dumps(
            {
                "audio_filepath": _relative(utterance.audio_filepath, folder),
                "text": utterance.text,
                "duration": round(utterance.duration_secs, 4),
                "utterance_id": utterance.utterance_id,
                "speaker": utterance.speaker_id,
            },
            ensure_ascii=False,
        )
        for utterance in utterances
    ]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


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
    where, rows = _list_rows(format, input, split, report)
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


def _list_rows(
    format: str, input: str | os.PathLike[str], split: str, report: Report
) -> tuple[str, list[_Row]]:
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
        raise InputError(f"no manifest {located}: give the path of a file")
    return located, split


def _rows_of(
    records: Sequence[tuple[int, Mapping[str, object]]], path: str, split: str, report: Report
) -> Iterator[_Row]:
    if split:
        found = {str(record["split"]) for _, record in records if record.get("split")}
        if split not in found:
            has = f"it has {', '.join(sorted(found)[:10])}" if found else "it names no splits"
            raise InputError(f"no split {split!r} in {path}: {has}")
        records = [item for item in records if item[1].get("split") == split]
    folder = os.path.dirname(path)
    # Common Voice. Two listings, for behind a URL each look at a single file is a request.
    in_clips = set(storage.list_names(storage.join(folder, "clips") if folder else "clips"))
    in_clips -= set(storage.list_names(folder or ".")) if in_clips else set()
    for number, record in records:
        audio = _field(record, "audio_filepath", "path")
        text = _field(record, "text", "sentence")
        if not audio:
            report(_bad_record(path, number, "has no audio_filepath: add it"))
            continue
        if text is None:
            key = _field(record, "utterance_id") or _stem(audio)
            what = f"{path}:{number} has no text: add it"
            report(Fault("missing_transcript", what, {key: what}))
            continue
        audio_path = storage.join(folder, "clips" if audio in in_clips else "", audio)
        yield _Row(
            utterance_id=_field(record, "utterance_id") or _stem(audio_path),
            path=audio_path,
            text=text,
            speaker_id=_field(record, "speaker", "speaker_id", "client_id") or "",
        )


def _field(record: Mapping[str, object], *names: str) -> str | None:
    """The first of the named fields that is there, as text; numbers are common speaker names."""
    for name in names:
        value = record.get(name)
        if value is not None and not isinstance(value, list | dict | bool):
            return str(value)
    return None


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


def _bad_record(path: str, number: int, what: str) -> Fault:
    return Fault("bad_record", f"{path}:{number} {what}", {f"{path}:{number}": what})


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

    def header_or_error(row: _Row) -> tuple[int, int] | InputError:
        try:
            return read_header(row.path)
        except InputError as error:
            return error

    is_remote = any(storage.is_remote(row.path) for row in rows)
    with ThreadPoolExecutor(_REMOTE_HEADER_THREADS if is_remote else _HEADER_THREADS) as pool:
        answers = pool.map(header_or_error, rows)
        headers = list(
            tqdm(answers, desc="headers", total=len(rows), unit="utt", delay=2.0, disable=None)
        )
    errors = {
        row.utterance_id: header
        for row, header in zip(rows, headers, strict=True)
        if isinstance(header, InputError)
    }
    for code in dict.fromkeys(error.code for error in errors.values()):
        details = {name: str(error) for name, error in errors.items() if error.code == code}
        count = f" ({len(errors)} of {len(rows)} files fail)" if len(errors) > 1 else ""
        report(Fault(code or "unreadable_audio", f"{next(iter(details.values()))}{count}", details))
    return [
        Utterance(row.utterance_id, row.path, row.text, header[0], header[1], row.speaker_id)
        for row, header in zip(rows, headers, strict=True)
        if not isinstance(header, InputError)
    ]


def _list_splits(root: str | os.PathLike[str]) -> str:
    """The splits under a corpus root, for the end of an error message."""
    found = storage.glob(root, "*/*/*/*.trans.txt")
    splits = sorted({path.split("/")[-4] for path in found})
    return f"; {root} has the splits {', '.join(splits[:10])}" if splits else ""


def _read_text(path: str) -> str:
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")  # as text files are read
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it") from error
