"""Renamed config fields and flags: the old spelling works and is answered with one line that names the new one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

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


def rename_path(path: str) -> str:
    """Returns a dotted path such as data.text_style with its last part under its new name."""
    before, dot, last = path.rpartition(".")
    return f"{before}{dot}{FIELDS.get(last, last)}"
