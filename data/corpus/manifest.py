"""Reads lists of utterances in any format: trees, manifests, tables, cuts, and recordings inside other files.

A fault in a corpus, such as a transcript without audio, raises `InputError` with the file and the line. A caller that
wants to hear of all faults passes `read_utterances` a `report` and gets the remaining utterances. Manifests and audio
may be local or behind URLs such as gs://.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from common import storage
from common.near_files import describe_near
from data.common.errors import InputError
from data.common.files import relative_path, write_text_atomic
from data.corpus.columns import OWN_FIELDS, choose_text_column
from data.corpus.faults import Fault, Report, nothing_left, refuse, remember
from data.corpus.headers import read_headers
from data.corpus.kaldi import list_kaldi
from data.corpus.lhotse import list_lhotse
from data.corpus.librispeech import list_librispeech
from data.corpus.packed import PACKED_FORMATS, list_packed
from data.corpus.records import iterate_json_records, read_json_records, read_table_records, with_text
from data.corpus.rows import locate_rows, read_row, read_rows, select_split
from data.corpus.slices import keep_few_valued
from data.corpus.utterance import Row, Utterance, suffix

_DELIMITERS = {"csv": ",", "tsv": "\t"}
ONE_FILE_FORMATS = ("jsonl", *_DELIMITERS)  # a line or a row for each utterance
MANIFEST_FORMATS = ("librispeech", *ONE_FILE_FORMATS, "kaldi", "lhotse", *PACKED_FORMATS)
_WITHOUT_COLUMNS = ("librispeech", "kaldi", "lhotse", "shar")  # their transcripts have one place


def read_librispeech(root: str | os.PathLike[str], split: str = "") -> list[Utterance]:
    """Reads ROOT/SPLIT/SPEAKER/CHAPTER/*.trans.txt and the audio files beside them.

    Args:
        root: Folder of the splits.
        split: Folder of the split; "" if `root` is the split.

    Returns:
        The utterances, sorted by id; `speaker_id` is the folder of the speaker.

    Raises:
        InputError: If the corpus is not complete.
    """
    return read_headers(list_librispeech(root, split, refuse), storage.join(root, split), refuse)


def read_jsonl(path: str | os.PathLike[str], split: str = "") -> list[Utterance]:
    """Reads a manifest with one JSON object per line.

    Keys: `audio_filepath` (relative to the manifest's folder) and `text`; optional `offset` and `duration` in seconds,
    `audio_channel` (the only one to hear, from 0), `utterance_id` (default: the file name without its suffix, and the
    start of the segment), `speaker` or `speaker_id`, and `split`. With an `offset` the utterance is `duration` seconds
    of the file from there, or the rest of the file without a `duration`. Without an `offset` it is the whole file,
    whatever the `duration` is.

    Args:
        path: Manifest, or a folder with SPLIT.jsonl.
        split: Keeps the lines with this `split`; "" = all lines.

    Returns:
        The utterances in the order of the manifest.

    Raises:
        InputError: If a line or an audio file is bad; names the line.
    """
    path, rows = _list_jsonl(path, split, refuse)
    return read_headers(rows, path, refuse)


def _list_jsonl(
    path: str | os.PathLike[str], split: str, report: Report, text_column: str = ""
) -> tuple[str, list[Row]]:
    path, split = _locate(path, split, ".jsonl")
    records = with_text(read_json_records(path, report), text_column)
    return path, list(locate_rows(records, path, split, report))


def _list_table(
    path: str | os.PathLike[str], split: str, format: str, report: Report, text_column: str
) -> tuple[str, list[Row]]:
    path, split = _locate(path, split, f".{format}")
    records = read_table_records(path, _DELIMITERS[format], report, needs_text=not text_column)
    if text_column and records:
        choose_text_column(records[0].fields, text_column, path)
    return path, list(locate_rows(with_text(records, text_column), path, split, report))


def write_jsonl(
    path: str | os.PathLike[str],
    utterances: Iterable[Utterance],
    fields: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Writes a manifest for `read_jsonl`, atomically; audio paths are relative to its folder.

    Args:
        path: File or URL.
        utterances: Utterances in the order of the manifest.
        fields: Utterance id -> more keys of its line.
    """
    write_text_atomic(path, format_jsonl(path, utterances, fields))


def format_jsonl(
    path: str | os.PathLike[str],
    utterances: Iterable[Utterance],
    fields: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """Returns what `write_jsonl` writes."""
    folder = os.path.dirname(path if storage.is_remote(path) else os.path.abspath(path))
    lines = [
        json.dumps(
            {
                "audio_filepath": relative_path(utterance.audio_filepath, folder),
                "text": utterance.text,
                **_time_fields(utterance),
                **({} if utterance.channel is None else {"audio_channel": utterance.channel}),
                "utterance_id": utterance.utterance_id,
                "speaker": utterance.speaker_id,
                **(fields or {}).get(utterance.utterance_id, {}),
            },
            ensure_ascii=False,
        )
        for utterance in utterances
    ]
    return "".join(line + "\n" for line in lines)


def _time_fields(utterance: Utterance) -> dict[str, float]:
    if utterance.start is None:
        return {"duration": round(utterance.duration_secs, 4)}
    # Not rounded, so that the same samples are read again.
    return {"offset": utterance.start / utterance.sample_rate, "duration": utterance.duration_secs}


def read_utterances(
    *,
    format: str,
    input: str | os.PathLike[str],
    split: str = "",
    speakers: Collection[str] = (),
    exclude_speakers: Collection[str] = (),
    text_column: str = "",
    report: Report = refuse,
) -> list[Utterance]:
    """Reads a corpus in any of `MANIFEST_FORMATS`.

    A jsonl manifest has the keys of `read_jsonl`. A csv or tsv table has a header line with the columns
    `audio_filepath` or `path`, `text` or `sentence`, and optionally `offset`, `duration`, `utterance_id`, `speaker`,
    `speaker_id` or `client_id`, and `split`. Paths are relative to the folder of the file or, as in Common Voice, to
    the folder `clips` beside it. A librispeech tree is read as by `read_librispeech`, kaldi and lhotse as by
    `list_kaldi` and `list_lhotse`. parquet, arrow, webdataset and shar are files, folders or patterns of several files,
    see `data.corpus.packed`.

    Args:
        format: One of `MANIFEST_FORMATS`.
        input: Folder or file, as the format wants it.
        split: Part of the corpus; "" = all.
        speakers: Speakers to keep; empty = all.
        exclude_speakers: Speakers to drop, without reading their files.
        text_column: Key or column of the transcripts; "" = the known ones.
        report: Called with each fault of single utterances, which are left out when it returns.

    Returns:
        At least one utterance, unless all audio files are faulty and `report` returned.

    Raises:
        InputError: If the corpus cannot be read, a named speaker is absent, or no utterance is left.
    """
    faults, hear = remember(report)
    where, rows = _list_rows(format, input, split, hear, text_column)
    rows = keep_few_valued(rows)
    if faults and not rows:
        raise nothing_left(where, faults)
    kept = select_speakers(
        [row.speaker_id for row in rows],
        speakers=speakers,
        exclude_speakers=exclude_speakers,
        where=str(input),
    )
    return read_headers([rows[index] for index in kept], where, report)


def list_audio(
    *, format: str, input: str | os.PathLike[str], text_column: str = "", report: Report = refuse
) -> list[str]:
    """Returns the paths of all audio files that a corpus lists, whether they exist or not."""
    return [row.path for row in _list_rows(format, input, "", report, text_column)[1]]


def _list_rows(
    format: str, input: str | os.PathLike[str], split: str, report: Report, text_column: str = ""
) -> tuple[str, list[Row]]:
    """Returns the folder or file of a corpus in any of `MANIFEST_FORMATS`, and its rows."""
    if text_column and format in _WITHOUT_COLUMNS:
        raise InputError(f"{os.fspath(input)}: the format {format} has no columns: leave text_column empty")
    if format == "librispeech":
        return storage.join(input, split), list_librispeech(input, split, report)
    if format == "kaldi":
        return storage.join(input, split), list_kaldi(input, split, report)
    if format == "lhotse":
        return list_lhotse(input, split, report)
    if format == "jsonl":
        return _list_jsonl(input, split, report, text_column)
    if format in _DELIMITERS:
        return _list_table(input, split, format, report, text_column)
    if format in PACKED_FORMATS:
        records, split = list_packed(format=format, input=input, split=split, text_column=text_column, report=report)
        rows = read_rows(select_split(list(records), os.fspath(input), split) if split else records, report)
        return os.fspath(input), list(rows)
    raise InputError(f"unknown format {format!r}: use one of {', '.join(MANIFEST_FORMATS)}")


def read_fields(
    utterances: Iterable[Utterance], *, format: str, input: str | os.PathLike[str], split: str = ""
) -> dict[str, dict[str, object]]:
    """Returns utterance id -> the keys and columns of a corpus that say nothing about audio or text.

    Args:
        utterances: Utterances of the corpus; in formats other than jsonl, csv and tsv, their fields are returned.
        format: Format of the corpus.
        input: Folder or file of the corpus.
        split: Part of the corpus, whose name is none of the fields.
    """
    if format not in ONE_FILE_FORMATS:
        return {utterance.utterance_id: dict(utterance.fields) for utterance in utterances}
    ignored: list[Fault] = []
    path, _ = _locate(input, split, f".{format}")
    if format == "jsonl":
        records = read_json_records(path, ignored.append)
    else:
        records = read_table_records(path, _DELIMITERS[format], ignored.append, needs_text=False)
    # The text may be in a column of another name.
    rows = ((read_row(record, needs_text=False), record) for record in records)
    return {
        row.utterance_id: {key: value for key, value in record.fields.items() if key not in OWN_FIELDS}
        for row, record in rows
        if isinstance(row, Row)
    }


def select_speakers(
    speaker_ids: Sequence[str],
    *,
    speakers: Collection[str] = (),
    exclude_speakers: Collection[str] = (),
    where: str,
) -> list[int]:
    """Returns the indices of the utterances of the wanted speakers.

    Args:
        speaker_ids: Speaker of each utterance.
        speakers: Speakers to keep; empty = all.
        exclude_speakers: Speakers to drop.
        where: Name of the corpus in messages.

    Raises:
        InputError: If a named speaker is absent, or no utterance is left.
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
    """Returns the manifest to read, and the split to select from it."""
    located = os.fspath(path)
    if split and storage.is_dir(located):
        located, split = storage.join(located, f"{split}{suffix}"), ""
    if not storage.is_file(located):
        raise InputError(f"no manifest {located}: give the path of a file{describe_near(located)}")
    return located, split


def delimiter_of(path: str) -> str:
    """Returns what separates the columns of a table, by its suffix; "" for a manifest of JSON lines."""
    return _DELIMITERS.get(suffix(path).removeprefix("."), "")


def iterate_rows(path: str, report: Report) -> Iterator[Row]:
    """Yields the rows of a manifest of audio without transcripts, a row at a time.

    A .jsonl manifest of any length is read line by line; a table (.csv, .tsv) is held in memory.

    Args:
        path: Manifest, whose suffix names its format. A row without a text has the text "".
        report: Called with each fault of a row when it is reached; the row is left out when it returns.

    Raises:
        InputError: If the manifest as a whole cannot be read.
    """
    delimiter = delimiter_of(path)
    records = (
        read_table_records(path, delimiter, report, needs_text=False)
        if delimiter
        else iterate_json_records(path, report)
    )
    return locate_rows(records, path, "", report, needs_text=False)
