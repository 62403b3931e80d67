"""Lists the cuts of Lhotse Shar, whose recordings lie in a tar beside each file of cuts."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common import storage
from common.json_files import MalformedFileError, field, optional_field, parse_object
from data.archives.address import ByteRange
from data.archives.tar import TarMember, list_members
from data.common.errors import InputError
from data.corpus.faults import Fault, Report
from data.corpus.rows import Record
from data.corpus.slices import cut_fields

_CUTS = re.compile(r"cuts\.(.+?)\.jsonl(?:\.gz)?")
_SLACK_SECS = 0.05


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
        for place, line in _read_lines(path, report):
            try:
                cut = parse_object(line, place)
                yield from _read_cut(cut, place, tar, audio, report)
            except MalformedFileError as error:
                what = f"{str(error).removeprefix(place).lstrip(': ')}, correct the line"
                report(Record(place, {}, "").fault(what))


_NO_AUDIO = (".json", ".nodata", ".nometa")  # the recording's own fields, and what Lhotse writes for an absent one


def _read_lines(path: str, report: Report) -> Iterator[tuple[str, bytes]]:
    """Yields the place and the content of each line that is not blank."""
    try:
        with storage.open_binary(path) as packed:
            is_packed = path.endswith(".gz")
            with gzip.open(packed) if is_packed else packed as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield f"{path}:{number}", line.strip()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        damage = f"{path} is not whole ({' '.join(str(error).split())}): fetch or make it again"
        report(Fault("damaged_shard", damage, {path: damage}))


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
    secs = field(cut, "duration", float, place)
    supervisions = optional_field(cut, "supervisions", list, place, [])
    for supervision in supervisions or [{}]:
        if not isinstance(supervision, dict):
            raise MalformedFileError(f"{place} has a supervision that is not a JSON object")
        is_part = len(supervisions) > 1
        utterance_id = optional_field(supervision, "id", str, place, cut_id) if is_part else cut_id
        start = optional_field(supervision, "start", float, place, 0.0)
        duration = optional_field(supervision, "duration", float, place, secs)
        if start < -_SLACK_SECS or start + duration > secs + _SLACK_SECS:
            what = f"has a text from {start:g} s to {start + duration:g} s in a cut of {secs:g} s: cut it again"
            report(blank.fault(what, code="bad_segment", key=utterance_id))
            continue
        fields: dict[str, object] = {
            **cut_fields(cut, supervision),
            "audio_filepath": address,
            "utterance_id": utterance_id,
            "text": supervision.get("text"),
            "speaker": supervision.get("speaker"),
            "duration": duration if is_part else secs,
        }
        if is_part:
            fields["offset"] = max(0.0, start)
        yield blank._replace(fields=fields)
