"""Writes manifests of the utterances without errors, and of those that are left out, with the reasons."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common import storage
from data.common.files import write_text_atomic
from data.corpus.manifest import format_jsonl, read_fields
from data.corpus.sources import listed_utterances
from data.corpus.utterance import Utterance
from data.doctor.findings import Finding, Severity

if TYPE_CHECKING:
    from data.doctor.opened_sets import Opened

FOLDER = "cleaned"
# Errors that are no fault of an utterance: its characters are fine with another vocabulary.
_NOT_OF_UTTERANCES = (
    "unusable_corpus",
    "unknown_characters",
    "unrelated_transcripts",
    "frozen_random",
    "damaged_shard",
)
# Training leaves these out, so their reasons belong into the list.
_LEFT_OUT_ANYWAY = ("too_short", "too_long")
_LEAKS = ("id_leak", "audio_leak")
_TWIN = "the audio of "  # what is before the id of the other utterance in a detail

Reason = tuple[str, str]
"""Code of a finding, and what it says of the utterance."""


@dataclass(frozen=True)
class CleanedSet:
    """A set without the utterances that have errors.

    Attributes:
        name: name of the set in the report.
        kept: utterances without errors.
        left_out: utterances with errors.
        reasons: id, or file and line, of everything that is left out -> why.
        fields: config fields of the set.
    """

    name: str
    kept: Sequence[Utterance]
    left_out: Sequence[Utterance]
    reasons: Mapping[str, Sequence[Reason]]
    fields: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """Returns the name of the files without their endings: train, or the name of the evaluation set."""
        return re.sub(r"[^\w.-]+", "_", self.name.removeprefix("eval "))

    def describe(self) -> str:
        """Returns a line for a terminal: how many utterances are kept, and where."""
        return (
            f"{self.name}: {FOLDER}/{self.stem}.jsonl has the {len(self.kept):,} utterances without errors, "
            f"{self.stem}.left_out.jsonl the other {len(self.reasons):,} with the reasons"
        )


def clean(opened: Sequence[Opened], findings: Sequence[Finding]) -> list[CleanedSet]:
    """Returns the sets of which something is left out; shards and sets that cannot be opened are not among them.

    Of recordings with contradicting transcripts all are left out, because nobody knows which one is right. What leaks
    from an evaluation set is left out of training.

    Args:
        opened: The examined sets.
        findings: What was found in them.
    """
    errors = [item for item in findings if item.severity == Severity.ERROR and item.code not in _NOT_OF_UTTERANCES]
    errors += [item for item in findings if item.code in _LEFT_OUT_ANYWAY]
    found = []
    for one in opened:
        if one.corpus is None or not listed_utterances(one.source):
            continue
        utterances = listed_utterances(one.source)
        reasons = _find_reasons(one, errors, {item.utterance_id for item in utterances})
        if reasons:
            kept = [item for item in utterances if item.utterance_id not in reasons]
            left_out = [item for item in utterances if item.utterance_id in reasons]
            found.append(CleanedSet(one.name, kept, left_out, reasons, one.fields))
    return found


def _find_reasons(one: Opened, errors: Sequence[Finding], known: set[str]) -> dict[str, list[Reason]]:
    reasons: dict[str, list[Reason]] = defaultdict(list)
    for item in errors:
        for key, what in item.details.items():
            twin = what.removeprefix(_TWIN) if what.startswith(_TWIN) else ""
            if item.code in _LEAKS:
                trained = twin or key
                if one.corpus_name and trained in known:
                    reasons[trained].append((item.code, f"{item.where} has it, as {key}"))
            elif item.where == one.name and item.code != "duplicate_id":  # the first of each id is kept
                reasons[key].append((item.code, what))
                if item.code == "contradicting_transcripts" and twin in known:
                    reasons[twin].append((item.code, f"{_TWIN}{key}"))
    return dict(reasons)


def write_cleaned(sets: Sequence[CleanedSet], folder: str | os.PathLike[str]) -> None:
    """Writes FOLDER/cleaned/SET.jsonl and SET.left_out.jsonl; what an earlier examination wrote there is removed.

    Args:
        sets: Sets of which something is left out.
        folder: Folder of the doctor's reports.
    """
    target = storage.join(folder, FOLDER)
    written = {f"{one.stem}{ending}" for one in sets for ending in (".jsonl", ".left_out.jsonl")}
    for name in set(storage.list_names(target)) - written:
        if name.endswith(".jsonl"):
            storage.remove(storage.join(target, name))
    for one in sets:
        given = {name: one.fields.get(name, "") for name in ("format", "input", "split")}
        fields = read_fields([*one.kept, *one.left_out], **given)
        path = storage.join(target, f"{one.stem}.jsonl")
        write_text_atomic(path, format_jsonl(path, one.kept, fields))
        lines = format_jsonl(path, one.left_out, fields).splitlines()
        records = {item.utterance_id: json.loads(line) for item, line in zip(one.left_out, lines, strict=True)}
        described = [
            {
                **records.get(key, {"utterance_id": key}),
                "reasons": [{"code": code, "detail": what} for code, what in reasons],
            }
            for key, reasons in one.reasons.items()
        ]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in described)
        write_text_atomic(storage.join(target, f"{one.stem}.left_out.jsonl"), text)
