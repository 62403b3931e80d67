"""Divides utterances into parts that share no speaker and no recording, by their hours."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from data.common.errors import InputError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|%)")
_SECS = {"h": 3600.0, "min": 60.0}
_MOST_OF_TARGET = 1.5  # a group that exceeds what a part still wants by this factor is left for another part


class Part(NamedTuple):
    """A part to make.

    Attributes:
        name: Name of the part.
        secs: Its duration; None = the rest.
    """

    name: str
    secs: float | None


def read_parts(text: str, total_secs: float) -> list[Part]:
    """Reads parts such as "train,dev=5%,test=2h"; the one without a size gets the rest.

    Args:
        text: Names with sizes in hours (h), minutes (min) or percent of the whole (%).
        total_secs: Duration of the whole.

    Raises:
        InputError: If a size cannot be read, names repeat, none or several have no size, or the sizes exceed the whole.
    """
    parts = [_read_part(item, total_secs) for item in filter(None, map(str.strip, text.split(",")))]
    rest = [part.name for part in parts if part.secs is None]
    if len(parts) < 2 or len({part.name for part in parts}) < len(parts) or len(rest) != 1:
        raise InputError(
            f"--parts={text} must name two or more parts, each once, all but one with a size: train,dev=5%,test=2h"
        )
    sizes = [part.secs for part in parts if part.secs is not None]
    wanted = sum(sizes)
    if wanted >= total_secs or min(sizes) <= 0:
        raise InputError(
            f"--parts={text} wants {wanted / 3600:.2f} h beside {rest[0]}, of {total_secs / 3600:.2f} h in all: give "
            "each part some of it"
        )
    return parts


def _read_part(text: str, total_secs: float) -> Part:
    """Reads one part such as "dev=5%", or "train" for the rest."""
    name, equals, size = (piece.strip() for piece in text.partition("="))
    found = _SIZE.fullmatch(size)
    if (equals and not found) or not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise InputError(f"--parts has {text!r}: write a name and a size, such as dev=5%, dev=30min or dev=2h")
    if found is None:
        return Part(name, None)
    number, unit = float(found[1]), found[2]
    return Part(name, number * _SECS[unit] if unit in _SECS else number / 100 * total_secs)


def group_utterances(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Returns the number of the group of each utterance; utterances that share a key, directly or not, have the same.

    Args:
        keys: Keys of each utterance, such as its speaker and its recording.
    """
    above = list(range(len(keys)))

    def find(index: int) -> int:
        while above[index] != index:
            above[index] = above[above[index]]
            index = above[index]
        return index

    first: dict[Hashable, int] = {}
    for index, ones in enumerate(keys):
        for key in ones:
            other = find(first.setdefault(key, index))
            above[max(other, find(index))] = min(other, find(index))
    return [find(index) for index in range(len(keys))]


def assign_parts(
    *,
    names: Sequence[str],
    groups: Sequence[int],
    secs: Sequence[float],
    strata: Sequence[Hashable],
    parts: Sequence[Part],
    seed: int = 0,
) -> list[str]:
    """Returns the part of each utterance, the same for any order of the utterances.

    Groups are taken in the order of a hash of their names. A part takes a group if that brings its seconds of each
    stratum closer to those of its share of the whole.

    Args:
        names: [N] unique ids.
        groups: [N] numbers of groups, which stay together.
        secs: [N] durations.
        strata: [N] values, such as gender and accent, that every part should have as often as the whole.
        parts: Parts to make; exactly one has no size.
        seed: Another seed gives another split.

    Raises:
        InputError: If a part stays empty because all groups are too large for it.
    """
    durations: dict[int, dict[Hashable, float]] = defaultdict(lambda: defaultdict(float))
    for group, each, stratum in zip(groups, secs, strata, strict=True):
        durations[group][stratum] += each
    left = _order_groups(names, groups, seed)
    whole: dict[Hashable, float] = defaultdict(float)
    for stratum, each in zip(strata, secs, strict=True):
        whole[stratum] += each
    chosen: dict[int, str] = {}
    for part in parts:
        if part.secs is None:
            continue
        taken = _fill(left, durations, {key: each * part.secs / sum(secs) for key, each in whole.items()})
        if not taken or len(taken) == len(left):
            smallest = min(sum(durations[group].values()) for group in left)
            raise InputError(
                f"{part.name} would be empty or take all: it wants {part.secs / 60:.1f} min, and the "
                f"smallest of the {len(left)} groups that must stay together has {smallest / 60:.1f} min; ask for "
                "another size, or let speakers be shared with --by=recording or --by=utterance"
            )
        chosen |= dict.fromkeys(taken, part.name)
        left = [group for group in left if group not in taken]
    rest = next(part.name for part in parts if part.secs is None)
    return [chosen.get(group, rest) for group in groups]


def _order_groups(names: Sequence[str], groups: Sequence[int], seed: int) -> list[int]:
    """Returns the groups in the order of a hash of the seed and of the first name in each."""
    first: dict[int, str] = {}
    for name, group in zip(names, groups, strict=True):
        first[group] = min(first.get(group, name), name)
    return sorted(first, key=lambda group: hashlib.sha256(f"{seed}:{first[group]}".encode()).digest())


def _fill(
    groups: Sequence[int], durations: Mapping[int, Mapping[Hashable, float]], target: Mapping[Hashable, float]
) -> set[int]:
    """Returns the groups that bring the seconds of each stratum close to a target."""
    missing, most = dict(target), _MOST_OF_TARGET * sum(target.values())
    taken: set[int] = set()
    total = 0.0
    for group in groups:
        counts = durations[group]
        size = sum(counts.values())
        gain = sum(abs(missing[key]) - abs(missing[key] - secs) for key, secs in counts.items())
        if gain > 0 and total + size <= most:
            taken.add(group)
            total += size
            for key, secs in counts.items():
                missing[key] -= secs
    return taken
