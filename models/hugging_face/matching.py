"""What becomes of each tensor of a Hugging Face model: taken over, made fresh, dropped, or a reason to refuse."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence

from models.hugging_face import names as hf_names
from models.wav2vec2.config import Wav2Vec2Config

_MAX_NAMES = 5


@dataclasses.dataclass
class Report:
    """What became of each tensor; names are those of the Hugging Face file, without the backbone's prefix.

    Attributes:
        config: The architecture.
        loaded: Tensors that were taken over -> number of parameters.
        fresh: Tensors that were not there and have new random values -> number of parameters.
        dropped: Tensors that were there and were not used -> number of parameters.
        understood: Lines on what audio and text the model works with.
        notes: Sentences for the reader.
    """

    config: Wav2Vec2Config
    loaded: dict[str, int] = dataclasses.field(default_factory=dict)
    fresh: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    understood: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text: counts, then what is fresh and what was dropped by name."""
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
    """Returns name in the table -> name in the file.

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
        config: The architecture.
        names: As `canonical_names` returns them.
        shapes: Name in the file -> shape.
        fresh_head: Whether the head is made fresh and that of the file, if there is one, dropped.
        allow_missing: Patterns of tensors that may be absent. The mask embedding always may: many published models lack
            it, and only training reads it.
        allow_unexpected: Patterns of tensors that are dropped. What only pre-training uses always is.

    Returns:
        What becomes of each tensor.

    Raises:
        ValueError: With everything that does not fit.
    """
    report = Report(config)
    table = hf_names.name_table(config)
    wanted = {name: entry.their_shape for entry in table for name in entry.theirs}
    missing, unexpected, mismatched = [], [], []
    for name, shape in wanted.items():
        size = math.prod(shape)
        found = shapes[names[name]] if name in names else None
        if fresh_head and name in hf_names.HEAD:
            report.fresh[name] = size
            if found is not None:
                report.dropped[name] = math.prod(found)
        elif found is None:
            if name == hf_names.MASK_EMBEDDING or _is_allowed(name, allow_missing):
                report.fresh[name] = size
            else:
                missing.append(name)
        elif found != shape:
            mismatched.append(f"{name} {list(found)} instead of {list(shape)}")
        else:
            report.loaded[name] = size
    for name, theirs in names.items():
        if name not in wanted:
            if name.startswith(hf_names.PRETRAINING_PREFIXES) or _is_allowed(name, allow_unexpected):
                report.dropped[name] = math.prod(shapes[theirs])
            else:
                unexpected.append(name)
    # One variable is made of several tensors: a part of it cannot be loaded and the rest be random.
    for entry in table:
        absent = [name for name in entry.theirs if name in report.fresh]
        if len(absent) < len(entry.theirs):
            missing.extend(absent)
    problems = [
        f"{len(found)} {kind}: {_some(found)}"
        for kind, found in (
            ("missing (--allow_missing=NAME,... makes them fresh)", missing),
            ("unexpected (--allow_unexpected=NAME,... drops them)", unexpected),
            ("of another shape than config.json says", mismatched),
        )
        if found
    ]
    if problems:
        raise ValueError(f"tensors that do not fit: {'; '.join(problems)}")
    return report


def _is_allowed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, hf_names.canonical_name(pattern)) for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
