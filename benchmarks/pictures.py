"""Draws measurements for docs/results as small, reproducible SVG files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.common import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARK, LIGHT = "#1f4e79", "#a9c4e0"


@contextlib.contextmanager
def panels(
    path: str | os.PathLike[str], *, count: int, width: float, height: float, columns: int = 3
) -> Iterator[list[Axes]]:
    """Yields `count` panels to draw on, row by row, and writes the file at the end.

    Args:
        path: SVG file to write.
        count: Number of panels.
        width: Width of a panel in inches.
        height: Height of a panel in inches.
        columns: Most panels of a row.
    """
    # Imported here, because most benchmarks draw nothing.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "earshot", "font.size": 8}):
        columns = min(columns, count)
        rows = -(-count // columns)
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places[count:]:
            place.remove()
        yield places[:count]
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    files.write_text_atomic(path, buffer.getvalue())
