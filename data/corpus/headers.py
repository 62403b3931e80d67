"""Reads the headers of listed audio files, which turns rows into utterances."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from common import storage
from common.near_files import FileFinder
from data.archives.address import parse_address
from data.audio.decoding import read_header
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.segments import find_segment
from data.corpus.utterance import Row, Utterance, may_be_padded

_THREADS = 8
_REMOTE_THREADS = 32
_NUM_DESCRIBED = 10  # missing files for which to look for one with a similar name


def read_headers(rows: Iterable[Row], where: str, report: Report) -> list[Utterance]:
    """Completes rows with the headers of their audio files.

    Args:
        rows: Listed utterances.
        where: Folder or manifest that lists them.
        report: Called with repeated ids and unreadable files, which are left out when it returns.
    """
    rows = _unique_rows(list(rows), where, report)
    headers = _read_all([row.path for row in rows])
    finder = FileFinder("" if storage.is_remote(where) else _folder_of(where))
    num_described = 0
    errors: dict[str, InputError] = {}
    utterances: list[Utterance] = []
    for row in rows:
        header = headers[row.path]
        if not isinstance(header, InputError):
            try:
                utterances.append(_complete(row, *header))
            except InputError as error:
                errors[row.utterance_id] = error
            continue
        is_searched = header.code == "missing_audio" and not (storage.is_remote(row.path) or parse_address(row.path))
        if is_searched and num_described < _NUM_DESCRIBED:
            num_described += 1
            header = InputError(f"{header}{finder.describe(row.path)}", code=header.code)
        errors[row.utterance_id] = (
            InputError(f"{header}; listed in {row.place}", code=header.code) if row.place else header
        )
    _report_errors(errors, len(rows), report)
    return utterances


def _report_errors(errors: Mapping[str, InputError], num_rows: int, report: Report) -> None:
    """Reports the errors of utterances, by id, as one fault for each code."""
    for code in dict.fromkeys(error.code for error in errors.values()):
        details = {name: str(error) for name, error in errors.items() if error.code == code}
        count = f" ({len(errors)} of {num_rows} files fail)" if len(errors) > 1 else ""
        report(Fault(code or "unreadable_audio", f"{next(iter(details.values()))}{count}", details))


def _unique_rows(rows: list[Row], where: str, report: Report) -> list[Row]:
    """Returns the first row of each id, and reports the ids that occur more than once."""
    counts = Counter(row.utterance_id for row in rows)
    repeated = {name: f"{count} times" for name, count in counts.items() if count > 1}
    if not repeated:
        return rows
    first = next(iter(repeated))
    places = [row.place for row in rows if row.utterance_id == first and row.place][:2]
    where_first = f" ({', '.join(places)})" if places else ""
    report(
        Fault(
            "duplicate_id",
            f"{len(repeated)} utterance ids occur more than once in {where}, first "
            f"{first!r}{where_first}: give every utterance its own utterance_id",
            repeated,
        )
    )
    return list({row.utterance_id: row for row in reversed(rows)}.values())[::-1]


def _read_all(paths: Sequence[str]) -> dict[str, tuple[int, int] | InputError]:
    """Returns the header, or the error, of each file; threads hide the latency of a network disk."""
    paths = list(dict.fromkeys(paths))
    is_remote = any(storage.is_remote(path) for path in paths)
    with ThreadPoolExecutor(_REMOTE_THREADS if is_remote else _THREADS) as pool:
        answers = pool.map(_header_or_error, paths)
        bar = tqdm(answers, desc="headers", total=len(paths), unit="file", delay=2.0, disable=None)
        return dict(zip(paths, bar, strict=True))


def _header_or_error(path: str) -> tuple[int, int] | InputError:
    try:
        return read_header(path)
    except InputError as error:
        return error
    except (OSError, ValueError, RuntimeError) as error:  # a URL of an unknown scheme, a name with a NUL
        return InputError(f"cannot read {path} ({error}): check the path")


def _complete(row: Row, num_samples: int, sample_rate: int) -> Utterance:
    is_lossy = may_be_padded(row)
    try:
        segment = find_segment(row.time, num_samples=num_samples, sample_rate=sample_rate, is_lossy=is_lossy)
    except ValueError as error:
        raise InputError(f"{row.place} {error}", code="bad_segment") from error
    return Utterance(
        row.utterance_id,
        row.path,
        row.text,
        segment.num_samples,
        sample_rate,
        row.speaker_id,
        start=segment.start,
        duration_conflict=segment.conflict,
        fields=row.fields,
        channel=row.channel,
    )


def _folder_of(path: str) -> str:
    return path if os.path.isdir(path) else os.path.dirname(path) or "."
