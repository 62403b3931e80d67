"""Keeps the hypotheses of the newest few evaluations in WORKDIR/eval/SET/history/STEP.jsonl."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from common import storage
from engine.common import files
from engine.workdir.records import read_heard

_FOLDER = "history"
_FIELDS = ("utterance_id", "hypothesis", "errors")
_KEPT = 3


def write_history(set_folder: str | os.PathLike[str], step: int, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Writes the hypotheses of an evaluation and removes old files; atomic.

    The newest three files stay and, because an older checkpoint may be evaluated again, the three up to this one.

    Args:
        set_folder: WORKDIR/eval/SET.
        step: Update of the evaluated weights.
        predictions: Lines of predictions.jsonl.
    """
    folder = storage.join(set_folder, _FOLDER)
    records = [{name: record[name] for name in _FIELDS} for record in predictions]
    files.write_jsonl_atomic(storage.join(folder, f"{step}.jsonl"), records)
    steps = _steps(folder)
    kept = {*steps[-_KEPT:], *[other for other in steps if other <= step][-_KEPT:]}
    for other in steps:
        if other not in kept:
            storage.remove(storage.join(folder, f"{other}.jsonl"))


def read_previous(set_folder: str | os.PathLike[str], step: int) -> tuple[int, dict[str, dict[str, Any]]] | None:
    """Returns the last evaluated update before `step` and its lines by utterance; None if there is none.

    Args:
        set_folder: WORKDIR/eval/SET.
        step: Update of the newer weights.
    """
    folder = storage.join(set_folder, _FOLDER)
    earlier = [other for other in _steps(folder) if other < step]
    if not earlier:
        return None
    records = read_heard(storage.join(folder, f"{earlier[-1]}.jsonl"))
    return earlier[-1], {record["utterance_id"]: record for record in records}


def _steps(folder: str) -> list[int]:
    stems = (name.removesuffix(".jsonl") for name in storage.list_names(folder) if name.endswith(".jsonl"))
    return sorted(int(stem) for stem in stems if re.fullmatch("[0-9]{1,18}", stem))
