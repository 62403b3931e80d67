"""Puts paths together again that a command line has split at the commas in their names."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Sequence

STDIN = "-"
# Separators at which a value may have been split.
_JOINTS = (",", ", ", " ,", " , ")
_MOST_COMMAS = 8  # in one file name


def join_split_paths(parts: Sequence[str]) -> list[str]:
    """Rejoins paths that were split at their commas.

    Args:
        parts: Parts of a value between its commas, without the spaces around them.

    Returns:
        The parts, neighbors joined where that gives an existing path: the whole value if it is one, else the most
        paths among the divisions with the fewest missing ones.
    """
    if len(parts) > 1 and (whole := _joined(parts)):
        return [whole]
    # For each suffix of the parts, shortest first: its number of missing paths and its division.
    best: list[tuple[int, list[str]]] = [(0, [])]
    for start in reversed(range(len(parts))):
        # Without a join: this part is taken for a missing path, unless a shorter join exists.
        choices = [(best[-1][0] + 1, 0, [parts[start], *best[-1][1]])]
        for count in range(1, min(_MOST_COMMAS + 1, len(parts) - start) + 1):
            if path := _joined(parts[start : start + count]):
                num_missing, rest = best[-count]
                choices.append((num_missing, -1, [path, *rest]))
                if not num_missing:
                    break
        num_missing, _, division = min(choices, key=lambda choice: choice[:2])
        best.append((num_missing, division))
    return best[-1][1]


def _joined(parts: Sequence[str]) -> str:
    """Returns the parts as one path that exists or a pattern that matches something; "" if there is none."""
    num_commas = len(parts) - 1
    if num_commas <= 3:
        joints: Iterable[Sequence[str]] = itertools.product(_JOINTS, repeat=num_commas)
    else:  # the same separator throughout, to limit the number of file accesses
        joints = ((joint,) * num_commas for joint in _JOINTS)
    for between in joints:
        path = parts[0] + "".join(joint + part for joint, part in zip(between, parts[1:], strict=True))
        if path == STDIN or os.path.exists(path) or (glob.has_magic(path) and glob.glob(path, recursive=True)):
            return path
    return ""
