"""Writes words with their times as Praat's TextGrid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from engine.inference.words import Timed

TEXTGRID_FOLDER = "textgrid"


def textgrid_paths(output: str, paths: Sequence[str]) -> list[str]:
    """Returns the TextGrid file of each recording."""
    return [os.path.join(output, TEXTGRID_FOLDER, f"{name}.TextGrid") for name in distinct_names(paths)]


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Returns a name for the files about each recording; where names repeat, folders and endings tell them apart."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    relative = [os.path.relpath(path, common) for path in absolute]
    # The shortest names that are all different.
    candidates = ([Path(path).stem for path in paths], [os.path.splitext(path)[0] for path in relative], relative)
    return next(names for names in candidates if len(set(names)) == len(names) or names is relative)


def textgrid(words: Sequence[Timed], *, duration_secs: float) -> str:
    """Returns a TextGrid (Praat's long text format) with the tiers words and characters, silence as empty intervals."""
    tiers = {"words": words, "characters": [character for word in words for character in word.characters]}
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_secs(duration_secs)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, parts) in enumerate(tiers.items(), start=1):
        intervals = _intervals(parts, duration_secs)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {_secs(duration_secs)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for position, (start, end, text) in enumerate(intervals, start=1):
            escaped = text.replace('"', '""')
            lines += [
                f"        intervals [{position}]:",
                f"            xmin = {_secs(start)}",
                f"            xmax = {_secs(end)}",
                f'            text = "{escaped}"',
            ]
    return "\n".join(lines) + "\n"


def _secs(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _intervals(parts: Sequence[Timed], duration_secs: float) -> list[tuple[float, float, str]]:
    """Returns intervals from 0 to the end without a gap, as Praat needs them."""
    found: list[tuple[float, float, str]] = []
    position = 0.0
    for part in parts:
        start, end = round(part.start_secs, 4), min(round(part.end_secs, 4), duration_secs)
        if start > position:
            found.append((position, start, ""))
        found.append((start, end, part.text))
        position = end
    if position < duration_secs:
        found.append((position, duration_secs, ""))
    return found
