r"""Divides a corpus into manifests for training and evaluation that share no speaker and no recording.

python -m data.split --format=tsv --input=validated.tsv --parts=train,dev=5%,test=2h --stratify=gender,accents \
    --output=splits

Writes splits/train.jsonl, splits/dev.jsonl and splits/test.jsonl. The same corpus in any order gives the same parts.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from common import storage
from data.command import Parser, comma_list, run_command
from data.common.errors import InputError
from data.common.files import write_text_atomic
from data.corpus.faults import Fault, nothing_left
from data.corpus.manifest import MANIFEST_FORMATS, format_jsonl, read_fields, read_utterances
from data.corpus.splits import Part, assign_parts, group_utterances, read_parts
from data.corpus.utterance import Utterance

# What stays together: the keys that utterances of one group share.
_BY = ("speaker", "recording", "utterance")
_MOST_STRATA = 5  # values of a field in the summary


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="data.split", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--format", required=True, help=f"format: {', '.join(MANIFEST_FORMATS)}")
    add("--input", required=True, help="folder or file of the corpus")
    add("--split", default="", help="part of the corpus to divide (default: all)")
    add("--text_column", default="", help="key or column of the transcripts (default: known names)")
    add("--output", required=True, help="folder of the manifests")
    add("--parts", default="train,dev=5%,test=5%", help="names and sizes in h, min or %%; one without gets the rest")
    add(
        "--by",
        default=_BY[0],
        choices=_BY,
        help="what no two parts share: a speaker and a recording, a recording alone, or no more than an utterance "
        "(default: speaker)",
    )
    add("--stratify", default="", help="comma-separated fields whose values every part has as often as the whole")
    add("--seed", type=int, default=0, help="another number gives another split (default: 0)")
    return run_command(parser, _split, argv)


def _split(flags: argparse.Namespace) -> None:
    where = {"format": flags.format, "input": flags.input, "split": flags.split}
    utterances = _read_corpus(**where, text_column=flags.text_column)
    fields = read_fields(utterances, **where)
    strata_names = comma_list(flags.stratify)
    _check_fields(strata_names, fields, flags.input)
    secs = [utterance.duration_secs for utterance in utterances]
    parts = read_parts(flags.parts, sum(secs))
    strata = [
        tuple(str(fields.get(utterance.utterance_id, {}).get(name, "")) for name in strata_names)
        for utterance in utterances
    ]
    chosen = assign_parts(
        names=[utterance.utterance_id for utterance in utterances],
        groups=group_utterances([_keys(utterance, flags.by) for utterance in utterances]),
        secs=secs,
        strata=strata,
        parts=parts,
        seed=flags.seed,
    )
    members = {part.name: [i for i, name in enumerate(chosen) if name == part.name] for part in parts}
    divided = {name: [utterances[i] for i in found] for name, found in members.items()}
    _write(flags.output, divided, fields)
    for part in parts:
        print(_describe(part, divided[part.name]))
        for name, values in zip(strata_names, zip(*strata, strict=True), strict=True):
            print(f"  {name}: {_shares({i: values[i] for i in members[part.name]}, secs)}")
    for line in find_leaks(divided):
        _warn(line)


def _read_corpus(**where: str) -> list[Utterance]:
    """Reads the utterances to divide, and warns of those that are left out."""
    faults: list[Fault] = []
    utterances = read_utterances(**where, report=faults.append)
    if not utterances:
        raise nothing_left(where["input"], faults)
    if faults:
        count = sum(len(fault.details) for fault in faults)
        _warn(f"{count} bad utterances left out; {faults[0].message}; --mode=doctor names them all")
    return utterances


def _check_fields(names: Iterable[str], fields: Mapping[str, Mapping[str, object]], input: str) -> None:
    """Raises InputError if no utterance has one of the fields of --stratify."""
    known = {key for record in fields.values() for key in record}
    for name in names:
        if name not in known:
            shown = ", ".join(sorted(known)[:20]) or "no other fields"
            raise InputError(f"no field {name!r} in {input}: it has {shown}")


def _keys(utterance: Utterance, by: str) -> Iterable[Hashable]:
    """Yields what an utterance must not share with one of another part."""
    if by == "speaker" and utterance.speaker_id:
        yield "speaker", utterance.speaker_id
    if by != "utterance":
        yield "recording", storage.absolute(utterance.audio_filepath)


def find_leaks(parts: Mapping[str, Sequence[Utterance]]) -> list[str]:
    """Returns a line for each kind of leak between parts: speakers, recordings, and audio that looks the same."""
    kinds: dict[str, Callable[[Utterance], Hashable]] = {
        "speakers": lambda utterance: utterance.speaker_id,
        "recordings": lambda utterance: utterance.audio_filepath,
        "texts of the same length in samples, perhaps of the same audio,": lambda utterance: (
            (" ".join(utterance.text.split()), utterance.num_samples) if utterance.text.strip() else None
        ),
    }
    lines = []
    for what, key_of in kinds.items():
        shared = _find_shared(parts, key_of)
        if shared:
            first = ", ".join(f"{name}: {utterance_id}" for name, utterance_id in shared[0].items())
            lines.append(f"{what} in several parts: {len(shared):,}, first in {first}")
    if not any(utterance.speaker_id for utterances in parts.values() for utterance in utterances):
        lines.append("no speaker is named, so one may be in several parts: add a column speaker")
    return lines


def _find_shared(
    parts: Mapping[str, Sequence[Utterance]], key_of: Callable[[Utterance], Hashable]
) -> list[dict[str, str]]:
    """Returns, for each key that utterances of several parts have, part -> id of its first utterance with the key."""
    found: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for name, utterances in parts.items():
        for utterance in utterances:
            if key := key_of(utterance):
                found[key].setdefault(name, utterance.utterance_id)
    return [places for places in found.values() if len(places) > 1]


def _write(folder: str, parts: Mapping[str, Sequence[Utterance]], fields: Mapping[str, Mapping[str, object]]) -> None:
    """Writes the manifests; refuses to replace one that holds something else."""
    texts = {
        path: format_jsonl(path, utterances, fields)
        for name, utterances in parts.items()
        for path in [storage.join(folder, f"{name}.jsonl")]
    }
    for path, text in texts.items():
        if storage.exists(path) and (not storage.is_file(path) or storage.read_bytes(path) != text.encode()):
            raise InputError(f"{path} holds something else: give another --output, or delete it")
    for path, text in texts.items():
        write_text_atomic(path, text)


def _describe(part: Part, utterances: Sequence[Utterance]) -> str:
    hours = sum(utterance.duration_secs for utterance in utterances) / 3600
    wanted = "the rest" if part.secs is None else f"wanted {part.secs / 3600:.2f} h"
    speakers = {utterance.speaker_id for utterance in utterances} - {""}
    of_speakers = f"{len(speakers):,} speakers" if speakers else "speakers unknown"
    return f"{part.name}: {len(utterances):,} utterances, {hours:.2f} h ({wanted}), {of_speakers}"


def _shares(values: Mapping[int, str], secs: Sequence[float]) -> str:
    """Returns the share of each value of a field by time, the most frequent ones first.

    Args:
        values: Utterance -> value.
        secs: Duration of each utterance.
    """
    sums: dict[str, float] = defaultdict(float)
    for index, value in values.items():
        sums[value] += secs[index]
    order = sorted(sums, key=lambda value: (-sums[value], value))
    shown = [f"{value or '(none)'} {100 * sums[value] / sum(sums.values()):.0f} %" for value in order[:_MOST_STRATA]]
    more = len(order) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _warn(line: str) -> None:
    print(f"data.split: warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
