"""Renamed config fields and flags: the old spelling works and is answered with one line that names the new one.

train.accum_steps is not a rename: it counted the microbatches of a replica, which now follow from the rows that the
memory of one device holds and from the number of devices. A command or a config that sets it is told what to write; in
the records of older runs it is replaced.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from common.json_files import is_kind

# Old name -> new name. A field's name is unique among all sections, so the last part of its path is enough.
FIELDS = {
    "allow_leak": "allow_train_eval_overlap",
    "best_of": "best_metric_set",
    "join_gap_secs": "concat_gap_secs",
    "join_max_secs": "concat_max_secs",
    "join_max_utterances": "concat_max_utterances",
    "make_command": "prepare_command",
    "max_bad_share": "max_unreadable_ratio",
    "max_skipped_in_a_row": "max_consecutive_skips",
    "recompute": "gradient_checkpointing",
    "regions": "fused_ops",
    "text_style": "text_normalization",
}
FLAGS = {"source": "format", "normalization": "text_normalization", "max_bad_share": "max_unreadable_ratio"}


def tell(old: str, new: str) -> None:
    """Prints one line that names the new spelling."""
    print(f"{old} is now spelled {new}; the old spelling still works", file=sys.stderr)


def rename_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested fields, such as those of a config.json, under their new names.

    A group of fields keeps its name: an evaluation set may be called "regions".
    """
    renamed: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            renamed[name] = rename_fields(value)
        else:
            renamed[FIELDS.get(name, name)] = value
    return renamed


def replace_accum_steps(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the nested fields of a config with what train.accum_steps meant on one device in its place."""
    train = fields.get("train")
    if not isinstance(train, Mapping) or "accum_steps" not in train:
        return fields
    name, value, _ = _find_microbatch(fields)
    kept = {other: old for other, old in train.items() if other != "accum_steps"}
    return {**fields, "train": {**kept, name: value} if value else kept}


def explain_accum_steps(fields: Mapping[str, Any], prefix: str = "") -> str:
    """Returns what a config that sets train.accum_steps has to set in its place; `prefix` goes before the field."""
    name, value, what = _find_microbatch(fields)
    return (
        "how many microbatches an update has now follows from the devices; write "
        f"{prefix}train.{name}={f'{value:g}' if value else 'N'} instead, the {what} that one device computes at a time"
    )


def _find_microbatch(fields: Mapping[str, Any]) -> tuple[str, float, str]:
    """Returns the field that replaces train.accum_steps, its value on one device (0 = unknown), and what it counts."""
    train, data = fields["train"], fields.get("data")
    count, secs = train["accum_steps"], data.get("max_batch_secs", 0) if isinstance(data, Mapping) else 0
    is_by_secs = is_kind(secs, float) and secs > 0
    name, what = ("microbatch_secs", "seconds of audio") if is_by_secs else ("microbatch_rows", "rows")
    whole: Any = secs if is_by_secs else train.get("global_batch_size")
    if not is_kind(count, float) or not is_kind(whole, float) or not 1 <= count < 1e9 or not 0 < whole < 1e9:
        return name, 0, what
    return name, whole / count if is_by_secs else math.ceil(whole / count), what


def rename_path(path: str) -> str:
    """Returns a dotted path such as data.text_style with its last part under its new name."""
    before, dot, last = path.rpartition(".")
    return f"{before}{dot}{FIELDS.get(last, last)}"
