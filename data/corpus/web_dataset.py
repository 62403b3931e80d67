"""Lists the samples of WebDataset tars: files that share a name, such as a.flac, a.txt and a.json."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from common.json_files import MalformedFileError, parse_object
from data.archives.address import ByteRange
from data.archives.tar import TarMember, list_members, read_member
from data.corpus.columns import OWN_FIELDS, SPEAKER_COLUMNS, TEXT_COLUMNS, choose_column
from data.corpus.faults import Fault, Report
from data.corpus.records import Record
from data.corpus.utterance import stem

_AUDIO = ("flac", "wav", "mp3", "ogg", "oga", "opus", "sph", "aiff", "aif", "au", "caf", "w64", "audio")
# Other audio, so that it is refused by its content with advice instead of being overlooked.
_OTHER_AUDIO = ("m4a", "mp4", "webm", "aac", "amr", "wma")
_TEXTS = ("txt", "text", "transcript", "transcription", "lab", "trn")
_THREADS = 8


class _Sample(NamedTuple):
    key: str
    members: dict[str, TarMember]


def list_samples(files: Sequence[str], report: Report, *, text_column: str = "") -> Iterator[Record]:
    """Yields a record for each sample that has audio; its `audio_filepath` is an address.

    The transcript is the text of KEY.txt, or a field of KEY.json.

    Args:
        files: Tars of one corpus.
        report: Called with each damaged tar, sample without audio and damaged JSON, which are left out when it returns.
        text_column: Field of the JSON, or suffix of the file, with the transcript; "" = a known one.

    Raises:
        InputError: If a tar cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(list_members, files))
    for path, (_, damage) in zip(files, found, strict=True):
        if damage:
            report(Fault("damaged_shard", damage, {path: damage}))
    listed = [group_members(members) for members, _ in found]
    keys = [sample.key for samples in listed for sample in samples]
    # Keys may be numbers that begin anew in each tar.
    is_repeated = len(set(keys)) < len(keys) and len(files) > 1
    for path, samples in zip(files, listed, strict=True):
        for sample in samples:
            record = _read_sample(
                path, sample, f"{stem(path)}/{sample.key}" if is_repeated else sample.key, text_column
            )
            if isinstance(record, Fault):
                report(record)
            else:
                yield record


def group_members(members: Sequence[TarMember]) -> list[_Sample]:
    """Returns the samples of a tar: neighbors with the same folder and name up to the first dot."""
    samples: list[_Sample] = []
    for member in members:
        folder, name = os.path.split(member.name)
        base, _, kind = name.partition(".")
        if not base or name.startswith("__"):  # hidden files, and WebDataset's own __key__
            continue
        key = os.path.join(folder, base).removeprefix("./")
        if not samples or samples[-1].key != key or kind.lower() in samples[-1].members:
            samples.append(_Sample(key, {}))
        samples[-1].members[kind.lower()] = member
    return samples


def _find_audio(members: Mapping[str, TarMember]) -> TarMember | None:
    kinds = (kind for known in (_AUDIO, _OTHER_AUDIO) for kind in members if kind.split(".")[-1] in known)
    return next((members[kind] for kind in kinds), None)


def _read_sample(path: str, sample: _Sample, utterance_id: str, text_column: str) -> Record | Fault:
    """Reads a sample; its transcript is a file, or else a field of its JSON."""
    blank = Record(f"{path}, {sample.key}", {}, "")
    members = sample.members
    audio = _find_audio(members)
    if audio is None:
        shown = ", ".join(members)[:80]
        return blank.fault(f"has no audio but {shown}: add it, or leave the sample out", code="missing_audio")
    place = f"{path}, {sample.key}.json"
    try:
        fields = parse_object(read_member(path, members["json"]), place) if "json" in members else {}
    except MalformedFileError as error:
        return blank._replace(place=place).fault(f"{str(error).removeprefix(place).strip()}, correct it")
    text: object = fields.get(text_column or choose_column(fields, TEXT_COLUMNS))
    if kind := choose_column(members, (text_column,) if text_column else _TEXTS):
        try:
            text = read_member(path, members[kind]).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return blank.fault(f"has a .{kind} that is not UTF-8 text, convert it")
    kept: dict[str, object] = {
        **{name: value for name, value in fields.items() if name not in OWN_FIELDS},
        "audio_filepath": str(ByteRange(path, audio.offset, audio.num_bytes)),
        "utterance_id": fields.get("utterance_id") or utterance_id,
        "text": text,
        "speaker": fields.get(choose_column(fields, SPEAKER_COLUMNS)),
        **{name: fields[name] for name in ("offset", "duration", "split") if name in fields},
    }
    return blank._replace(fields=kept)
