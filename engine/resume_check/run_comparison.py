"""Compares two runs bit by bit: losses, order of the data, weights and evaluations."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.workdir_layout import (
    BEST_FOLDER,
    CHECKPOINTS_FOLDER,
    EVAL_FOLDER,
    METRICS_FILE,
    PREDICTIONS_FILE,
    list_checkpoints,
)
from engine.checkpointing.compatibility import BOOKKEEPING, open_checkpoint
from engine.common import files
from engine.workdir.records import TRAIN_SPLIT, read_metrics

# Metrics that depend on the clock; all others must be equal.
_CLOCK_SUFFIXES = ("_per_sec", "_stall_ratio")
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Attributes:
        name: Name of the compared values.
        num_compared: Number of values that at least one run has.
        num_different: Number of values that differ.
        first_difference: Description of the first difference; empty without any.
    """

    name: str
    num_compared: int
    num_different: int
    first_difference: str = ""


def compare_runs(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> list[Check]:
    """Compares two finished runs; a value that only one of them has is a difference.

    Args:
        one: Workdir of the first run.
        other: Workdir of the second run.
    """
    lines = [read_metrics(Path(workdir) / METRICS_FILE) for workdir in (one, other)]
    training = [[line for line in side if line["split"] == TRAIN_SPLIT] for side in lines]
    evaluations = [[line for line in side if line["split"] != TRAIN_SPLIT] for side in lines]
    return [
        _compare("losses and other metrics of training", *map(_metrics, training)),
        _compare("order of the data", *map(_digests, training)),
        _compare("weights, optimizer and counters", *(_tensors(Path(w) / CHECKPOINTS_FOLDER) for w in (one, other))),
        _compare("metrics of evaluations", *map(_metrics, evaluations)),
        _compare("transcripts of evaluations", *map(_predictions, (one, other))),
        _compare("best weights", *(_tensors(Path(w) / BEST_FOLDER) for w in (one, other))),
    ]


def _metrics(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns {"update 5, train, loss": value}; repeated lines get different keys."""
    metrics: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for line in lines:
        where = f"update {line['step']}, {line['split']}"
        seen[where] = seen.get(where, 0) + 1
        if seen[where] > 1:
            where += f", line {seen[where]} of it"
        for name, value in line.items():
            if not name.endswith(_CLOCK_SUFFIXES) and name != "data_digest":
                metrics[f"{where}, {name}"] = value
    return metrics


def _digests(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {f"up to update {line['step']}": line.get("data_digest") for line in lines}


def _tensors(folder: Path) -> dict[str, bytes]:
    """Returns every value in the newest checkpoint of a folder."""
    paths = list_checkpoints(folder)
    if not paths:
        return {}
    reader = open_checkpoint(paths[-1])
    tensors = {"number of the checkpoint": os.path.basename(paths[-1]).encode()}
    for name in reader.get_variable_to_shape_map():
        # BOOKKEEPING counts the saves of a process, of which an interrupted run has more.
        if name.endswith(_VALUE_SUFFIX) and not name.startswith(BOOKKEEPING):
            tensors[name.removesuffix(_VALUE_SUFFIX)] = reader.get_tensor(name).tobytes()
    return tensors


def _predictions(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    return {
        f"{path.parent.name}, {line.get('utterance_id')}": line
        for path in sorted(Path(workdir).glob(f"{EVAL_FOLDER}/*/{PREDICTIONS_FILE}"))
        for line in files.read_jsonl(path)
    }


def _compare(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Check:
    keys = [*one, *(key for key in other if key not in one)]
    different = [key for key in keys if key not in one or key not in other or one[key] != other[key]]
    first = ""
    if different:
        key = different[0]
        values = [_show(side[key]) if key in side else "absent" for side in (one, other)]
        first = f"{key}: {values[0]} in one, {values[1]} in the other"
    return Check(name=name, num_compared=len(keys), num_different=len(different), first_difference=first)


def _show(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
