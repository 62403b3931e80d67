"""Finds the known names that a wrong name may stand for, for its error message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 3  # names offered
_ALIKE = 0.6  # difflib's ratio from which two names count as alike


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known names most like a wrong one, best first; those whose initials it is count as alike."""
    names = list(dict.fromkeys(known))
    by_key = {other.lower(): other for other in reversed(names)}
    found = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, n=_MOST, cutoff=_ALIKE)]
    found += [other for other in names if name == "".join(word[:1] for word in other.split("_")) != ""]
    found += [other for other in names if len(name) > 2 and name in other]
    return list(dict.fromkeys(found))[:_MOST]


def name_nearest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean a, b?", or where nothing is alike "; there is a, b, c"."""
    names = list(known)
    found = nearest_names(name, names)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; there is {', '.join(names)}" if names else ""
