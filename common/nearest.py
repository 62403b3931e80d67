"""Finds what somebody may have meant by a wrong name or path, for the line that says it is wrong."""

from __future__ import annotations

import difflib
import os
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


def near_path(path: str) -> str:
    """Returns "; did you mean PATH?" for a path that does not exist, "" where nothing in its folder is alike."""
    folder, name = os.path.split(os.path.normpath(path))
    try:
        entries = sorted(os.listdir(folder or "."))
    except OSError:
        return ""
    # Files of a folder share their endings, which would make all of them alike; and another ending may be meant.
    stems = nearest_names(os.path.splitext(name)[0], [os.path.splitext(entry)[0] for entry in entries])
    found = [os.path.join(folder, entry) for stem in stems for entry in entries if os.path.splitext(entry)[0] == stem]
    return f"; did you mean {' or '.join(found[:_MOST])}?" if found else ""
