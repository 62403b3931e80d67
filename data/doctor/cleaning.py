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
from data.doctor.findings import AUDIO_OF, Finding, Severity
from data.doctor.preflight import TRAIN
from data.doctor.segment_checks import check_shared_segments

if TYPE_CHECKING:
    from data.doctor.opened_sets import OpenedSet
    from data.doctor.text_checks import Corpus

FOLDER = "cleaned"
# Errors that are no fault of an utterance: its characters are fine with another vocabulary.
_NOT_OF_UTTERANCES = (
    "unusable_corpus",
    "unknown_characters",
    "unrelated_transcripts",
    "frozen_random",
    "damaged_shard",
)
# Training leaves these out, so their reasons belong in the list.
_LEFT_OUT_ANYWAY = ("too_short", "too_long")
_LEAKS = ("id_leak", "audio_leak")
_SEGMENT_LEAK = "segment_leak"
# Errors that leave nothing out of the set they are found in: the first of each id is kept, and leaks leave training.
_KEPT = ("duplicate_id", _SEGMENT_LEAK)

Reason = tuple[str, str]
"""Code of a finding, and what it says of the utterance."""


@dataclass(frozen=True)
class CleanedSet:
    """A set without the utterances that have errors.

    Attributes:
        name: Name of the set in the report.
        kept: Utterances without errors.
        left_out: Utterances with errors.
        reasons: Id, or file and line, of everything that is left out -> why.
        fields: Config fields of the set.
    """

    name: str
    kept: Sequence[Utterance]
    left_out: Sequence[Utterance]
    reasons: Mapping[str, Sequence[Reason]]
    fields: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """Returns the name of the files without their endings: train, or the name of the evaluation set."""
        name = self.name.removeprefix("eval ")
        is_taken = name != self.name and name.startswith(TRAIN)  # data.eval.train beside data.train
        return re.sub(r"[^\w.-]+", "_", self.name if is_taken else name)

    def describe(self) -> str:
        """Returns a line for a terminal: how many utterances are kept, and where."""
        return (
            f"{self.name}: {FOLDER}/{self.stem}.jsonl has the {len(self.kept):,} utterances without errors, "
            f"{self.stem}.left_out.jsonl the other {len(self.reasons):,} with the reasons"
        )


def clean(opened: Sequence[OpenedSet], findings: Sequence[Finding]) -> list[CleanedSet]:
    """Returns the sets of which something is left out; shards and sets that cannot be opened are not among them.

    Of recordings with contradicting transcripts all are left out, because nobody knows which one is right. What leaks
    from an evaluation set is left out of training, never of the evaluation set.

    Args:
        opened: The examined sets.
        findings: What was found in them.
    """
    errors = [item for item in findings if _is_reason(item)]
    evaluations = {one.name: one.corpus for one in opened if one.corpus and not one.corpus_name}
    cleaned = (_clean_set(one, one.corpus, errors, evaluations) for one in opened if one.corpus)
    return [one for one in cleaned if one.reasons]


def _is_reason(item: Finding) -> bool:
    """Returns whether a finding is a reason to leave its utterances out."""
    is_error = item.severity == Severity.ERROR and item.code not in _NOT_OF_UTTERANCES
    return is_error or item.code in _LEFT_OUT_ANYWAY


def _clean_set(
    one: OpenedSet, corpus: Corpus, errors: Sequence[Finding], evaluations: Mapping[str, Corpus]
) -> CleanedSet:
    """Divides the listed utterances of a set by its errors; shards list none."""
    utterances = listed_utterances(corpus.source)
    reasons = _find_reasons(one, errors, {item.utterance_id for item in utterances}) if utterances else {}
    if utterances and one.corpus_name:
        _add_shared_segments(reasons, corpus, errors, evaluations)
    return CleanedSet(
        name=one.name,
        kept=[item for item in utterances if item.utterance_id not in reasons],
        left_out=[item for item in utterances if item.utterance_id in reasons],
        reasons=reasons,
        fields=one.fields,
    )


def _find_reasons(one: OpenedSet, errors: Sequence[Finding], known: set[str]) -> dict[str, list[Reason]]:
    """Returns utterance id, or file and line -> why it is left out of a set, by the findings about it.

    Args:
        one: The set.
        errors: The errors of all sets.
        known: Ids of the utterances of the set.
    """
    reasons: dict[str, list[Reason]] = defaultdict(list)
    for item in errors:
        for key, what in item.details.items():
            twin = what.removeprefix(AUDIO_OF) if what.startswith(AUDIO_OF) else ""
            if item.code in _LEAKS:
                trained = twin or key
                if one.corpus_name and trained in known:
                    reasons[trained].append((item.code, f"{item.where} has it, as {key}"))
            elif item.where == one.name and item.code not in _KEPT:
                reasons[key].append((item.code, what))
                if item.code == "contradicting_transcripts" and twin in known:
                    reasons[twin].append((item.code, f"{AUDIO_OF}{key}"))
    return dict(reasons)


def _add_shared_segments(
    reasons: dict[str, list[Reason]], train: Corpus, errors: Sequence[Finding], evaluations: Mapping[str, Corpus]
) -> None:
    """Adds the training utterances that overlap with evaluation utterances, where that is an error.

    Args:
        reasons: What is left out of training so far; extended.
        train: The training corpus.
        errors: The errors of all sets.
        evaluations: Evaluation sets by name.
    """
    for name in (item.where for item in errors if item.code == _SEGMENT_LEAK):
        # The other way round than the finding: every training utterance that overlaps with the evaluation set.
        for shared in check_shared_segments(evaluations[name], train, ()):
            for key, what in shared.details.items():
                reasons.setdefault(key, []).append((_SEGMENT_LEAK, f"{what} of {name}"))


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
        write_text_atomic(storage.join(target, f"{one.stem}.left_out.jsonl"), _format_left_out(one, path, fields))


def _format_left_out(one: CleanedSet, path: str, fields: Mapping[str, Mapping[str, object]]) -> str:
    """Returns a line for everything that is left out of a set, as in its manifest at `path`, with the reasons."""
    lines = format_jsonl(path, one.left_out, fields).splitlines()
    records = {item.utterance_id: json.loads(line) for item, line in zip(one.left_out, lines, strict=True)}
    described = [
        {
            **records.get(key, {"utterance_id": key}),
            "reasons": [{"code": code, "detail": what} for code, what in reasons],
        }
        for key, reasons in one.reasons.items()
    ]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in described)
