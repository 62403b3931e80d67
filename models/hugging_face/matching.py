"""Matches the tensors of a Hugging Face model with those of the network: loaded, new, dropped or refused."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Container, Mapping, Sequence

from models.hugging_face import names as hf_names
from models.wav2vec2.config import Wav2Vec2Config

_MAX_NAMES = 5


@dataclasses.dataclass
class Report:
    """Outcome of a conversion; names are those of the Hugging Face file, without the backbone's prefix.

    Attributes:
        config: Architecture of the model.
        loaded: Loaded tensors -> number of parameters.
        fresh: Missing tensors, which have new random values -> number of parameters.
        dropped: Unused tensors of the file -> number of parameters.
        understood: Lines on the audio and text that the model expects.
        notes: Remarks for the user.
    """

    config: Wav2Vec2Config
    loaded: dict[str, int] = dataclasses.field(default_factory=dict)
    fresh: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    understood: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns the report as text: counts, with the names of new and dropped tensors."""
        found = []
        for kind in ("loaded", "fresh", "dropped"):
            tensors = getattr(self, kind)
            line = f"{kind:>8}: {len(tensors)} tensors, {sum(tensors.values()):,} parameters"
            if tensors and kind != "loaded":
                line += f" ({_some(list(tensors))})"
            found.append(line)
        total = hf_names.num_parameters(self.config)
        without_head = hf_names.num_parameters(self.config, with_head=False)
        found.append(f"   model: {total:,} parameters, {without_head:,} without the head")
        return found + self.understood + [f"    note: {note}" for note in self.notes]


def canonical_names(names: Sequence[str]) -> dict[str, str]:
    """Maps names in the table to names in the file.

    Raises:
        ValueError: If two tensors have the same name in the table.
    """
    found: dict[str, str] = {}
    for name in names:
        canonical = hf_names.canonical_name(name)
        if canonical in found:
            raise ValueError(f"{found[canonical]} and {name} are the same tensor twice; remove one")
        found[canonical] = name
    return found


def match(
    *,
    config: Wav2Vec2Config,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    fresh_head: bool = False,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> Report:
    """Compares the tensors of a file with those of the network.

    Args:
        config: Architecture of the network.
        names: Name in the table -> name in the file, from `canonical_names`.
        shapes: Name in the file -> shape.
        fresh_head: Whether the head gets new random values and that of the file, if there is one, is dropped.
        allow_missing: Patterns of tensors that may be missing. The mask embedding always may, because many published
            models lack it and only training reads it, and so may constants.
        allow_unexpected: Patterns of tensors to drop. Those that only pretraining or another task uses always are.

    Raises:
        ValueError: If tensors are missing, unexpected or of another shape; names them all.
    """
    report = Report(config)
    table = hf_names.name_table(config)
    wanted = {name: entry.their_shape for entry in table for name in entry.theirs}
    found = {name: shapes[theirs] for name, theirs in names.items()}
    may_lack = [hf_names.MASK_EMBEDDING, *hf_names.CONSTANTS, *allow_missing, *(hf_names.HEAD if fresh_head else ())]
    may_drop = [*allow_unexpected, *(f"{prefix}*" for prefix in hf_names.PRETRAINING_PREFIXES), *hf_names.OTHER_HEADS]
    if fresh_head:
        report.dropped |= {name: math.prod(found.pop(name)) for name in hf_names.HEAD if name in found}
    missing, mismatched = _match_wanted(report, wanted, found, may_lack)
    unexpected = _match_unwanted(report, wanted, found, may_drop)
    missing += _partly_fresh(table, report.fresh)
    _refuse(
        {
            "missing (--allow_missing=NAME,... gives them random values)": missing,
            "unexpected (--allow_unexpected=NAME,... drops them)": unexpected,
            "of another shape than config.json says": mismatched,
        }
    )
    return report


def _refuse(problems: Mapping[str, Sequence[str]]) -> None:
    lines = [f"{len(tensors)} {kind}: {_some(tensors)}" for kind, tensors in problems.items() if tensors]
    if lines:
        raise ValueError(f"tensors that do not fit: {'; '.join(lines)}")


def _match_wanted(
    report: Report,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    may_lack: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Adds the tensors of the network to the report, and returns the missing ones and those of another shape."""
    missing, mismatched = [], []
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            mismatched.append(f"{name} {list(found[name])} instead of {list(shape)}")
        elif name in found:
            report.loaded[name] = math.prod(shape)
        elif _is_allowed(name, may_lack):
            report.fresh[name] = math.prod(shape)
        else:
            missing.append(name)
    return missing, mismatched


def _match_unwanted(
    report: Report,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    may_drop: Sequence[str],
) -> list[str]:
    """Adds the tensors to drop to the report, and returns the unexpected ones."""
    unexpected = []
    for name, shape in found.items():
        if name in wanted:
            continue
        if _is_allowed(name, may_drop):
            report.dropped[name] = math.prod(shape)
        else:
            unexpected.append(name)
    return unexpected


def _partly_fresh(table: Sequence[hf_names.Entry], fresh: Container[str]) -> list[str]:
    """Returns the new tensors of variables that are loaded in part; each must be loaded whole or not at all."""
    found = []
    for entry in table:
        new = [name for name in entry.theirs if name in fresh]
        if len(new) < len(entry.theirs):
            found += new
    return found


def _is_allowed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, hf_names.canonical_name(pattern)) for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
