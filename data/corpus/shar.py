"""Lists the cuts of Lhotse Shar, whose recordings lie in a tar beside each file of cuts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common import storage
from common.json_files import MalformedFileError, field, optional_field, parse_object
from data.archives.address import ByteRange
from data.archives.tar import TarMember, list_members
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.lhotse import find_channels, read_cut_time
from data.corpus.records import Record, iterate_lines
from data.corpus.slices import cut_fields

_CUTS = re.compile(r"cuts\.(.+?)\.jsonl(?:\.gz)?")
_NO_AUDIO = (".json", ".nodata", ".nometa")  # the recording's own fields, and what Lhotse writes for an absent one


def list_cuts(files: Sequence[str], report: Report) -> Iterator[Record]:
    """Yields a record for each cut, or for each supervision of a cut that has several; its path is an address.

    Args:
        files: Files of cuts, cuts.000000.jsonl.gz, each with recording.000000.tar beside it; others are passed over.
        report: Called with each damaged file and each cut that cannot be used, which is left out when it returns.

    Raises:
        InputError: If there is no file of cuts, or a tar is absent.
    """
    shards = [(path, found.group(1)) for path in files if (found := _CUTS.fullmatch(os.path.basename(path)))]
    if not shards:
        raise InputError(f"no cuts.000000.jsonl.gz among {len(files)} files, first {files[0]}: give a folder of Shar")
    for path, number in shards:
        tar = storage.join(storage.parent(path), f"recording.{number}.tar")
        members, damage = list_members(tar)
        if damage:
            report(Fault("damaged_shard", damage, {tar: damage}))
        audio = {os.path.splitext(item.name)[0]: item for item in members if not item.name.endswith(_NO_AUDIO)}
        for line_number, line in _read_lines(path, report):
            place = f"{path}:{line_number}"
            try:
                yield from _read_cut(parse_object(line, place), place, tar, audio, report)
            except MalformedFileError as error:
                report(Record(place, {}, "").malformed(error))


def _read_lines(path: str, report: Report) -> Iterator[tuple[int, bytes]]:
    """Yields the number and the content of each line, and reports where a damaged file ends."""
    try:
        yield from iterate_lines(path)
    except InputError as error:
        report(Fault("damaged_shard", str(error), {path: str(error)}))


def _read_cut(
    cut: Mapping[str, Any], place: str, tar: str, audio: Mapping[str, TarMember], report: Report
) -> Iterator[Record]:
    cut_id = field(cut, "id", str, place)
    blank = Record(place, {}, "")
    if (kind := optional_field(cut, "type", str, place, "MonoCut")) not in ("MonoCut", "MultiCut"):
        report(blank.fault(f"is a {kind}, which has several recordings: write Shar of its mix", key=cut_id))
        return
    if cut_id not in audio:
        report(blank.fault(f"has no recording {cut_id!r} in {tar}: write it again", code="missing_audio", key=cut_id))
        return
    member = audio[cut_id]
    address = str(ByteRange(tar, member.offset, member.num_bytes))
    supervisions = optional_field(cut, "supervisions", list, place, [])
    for supervision in supervisions or [{}]:
        if not isinstance(supervision, dict):
            raise MalformedFileError(f"{place} has a supervision that is not a JSON object")
        fields = _read_supervision(cut, supervision, blank, is_whole=len(supervisions) <= 1)
        if isinstance(fields, Fault):
            report(fields)
        else:
            yield blank._replace(fields={**fields, "audio_filepath": address})


def _read_supervision(
    cut: Mapping[str, Any], supervision: Mapping[str, Any], blank: Record, *, is_whole: bool
) -> dict[str, object] | Fault:
    """Reads a supervision without its address; the only one of a cut is the whole cut and has its id."""
    cut_id = field(cut, "id", str, blank.place)
    utterance_id = cut_id if is_whole else optional_field(supervision, "id", str, blank.place, cut_id)
    try:
        # The tar holds the audio of the cut alone.
        time = read_cut_time({**cut, "start": 0.0}, supervision, blank.place, is_whole=is_whole)
    except MalformedFileError:
        raise
    except ValueError as error:
        return blank.fault(str(error), code="bad_segment", key=utterance_id)
    wanted, stored = find_channels(cut, supervision), find_channels(cut, cut)
    if 1 < len(wanted) < len(stored):
        what = f"has {len(wanted)} of {len(stored)} channels, and one or all are read: write Shar of its mix"
        return blank.fault(what, key=utterance_id)
    fields: dict[str, object] = {
        **cut_fields(cut, supervision),
        "utterance_id": utterance_id,
        "text": supervision.get("text"),
        "speaker": supervision.get("speaker"),
        "duration": time.duration_secs,
    }
    if not is_whole:
        fields["offset"] = time.offset_secs
    if len(wanted) < len(stored):
        fields["audio_channel"] = stored.index(wanted[0])
    return fields
