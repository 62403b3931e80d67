"""Figures over updates as curves: numbers for an SVG that a template draws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 420, 170
_MAX_POINTS = 400  # of a line; more would not be seen
_LOG_FROM = 50.0  # ratio of the largest to the smallest value beyond which the axis is logarithmic
_NUM_COLOURS = 6
_LARGEST = 1e30

Points = Sequence[tuple[float, float | None]]
"""(update, value); None breaks the line."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a figure, in the picture's units.

    Attributes:
        name: In the legend.
        colour: Its number in the page's palette.
        segments: Points of the unbroken pieces, as SVG's polyline takes them.
        marks: (x, y, what it says) of single values, where there are few.
    """

    name: str
    colour: int
    segments: list[str]
    marks: list[tuple[float, float, str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of curves.

    Attributes:
        title: What is drawn, with its unit.
        lines: At least one.
        x_ticks: (x, label) along the axis of updates.
        y_ticks: (y, label).
        is_log: Whether the axis of values is logarithmic.
    """

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    is_log: bool


def draw(
    title: str, series: Mapping[str, Points], *, colours: Sequence[str] = (), may_be_log: bool = True
) -> Figure | None:
    """Returns a figure of some series; None where none has a value.

    Args:
        title: What is drawn.
        series: By the name in the legend.
        colours: Names in the order of the palette: what has the same name has the same colour in every figure.
        may_be_log: Whether values that lie far apart make the axis logarithmic.
    """
    kept = {name: _thin(points) for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if any(value is not None for _, value in points)}
    values = [value for points in kept.values() for _, value in points if value is not None]
    if not values:
        return None
    is_log = may_be_log and min(values) > 0 and max(values) / min(values) > _LOG_FROM
    y_marks = _log_marks(min(values), max(values)) if is_log else _marks(min(0.0, *values), max(values))
    low, high = y_marks[0], y_marks[-1]
    last_update = max(update for points in kept.values() for update, _ in points) or 1.0

    def x_of(update: float) -> float:
        return round(WIDTH * update / last_update, 1)

    def y_of(value: float) -> float:
        share = (
            (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
            if is_log
            else (value - low) / (high - low)
        )
        return round(HEIGHT * (1 - share), 1)

    lines = []
    order = [*colours, *(name for name in kept if name not in colours)]
    for name, points in kept.items():
        segments: list[list[str]] = [[]]
        for update, value in points:
            if value is None:
                segments.append([])
            else:
                segments[-1].append(f"{x_of(update):g},{y_of(value):g}")
        marks = [
            (x_of(update), y_of(value), f"{name}, update {update:,.0f}: {_number(value)}")
            for update, value in points
            if value is not None
        ]
        lines.append(
            Line(
                name=name,
                colour=order.index(name) % _NUM_COLOURS,
                segments=[" ".join(piece) for piece in segments if len(piece) > 1],
                marks=marks if len(marks) <= _MAX_POINTS // 10 else [],
            )
        )
    x_marks = [mark for mark in _marks(0.0, last_update) if mark <= last_update]
    return Figure(
        title=title,
        lines=lines,
        x_ticks=[(x_of(mark), f"{mark:,.0f}") for mark in x_marks if mark == int(mark)],
        y_ticks=[(y_of(mark), _number(mark)) for mark in y_marks],
        is_log=is_log,
    )


def series_of(lines: Iterable[Mapping[str, Any]], split: str, name: str, *, factor: float = 1.0) -> Points:
    """Returns one figure of one split out of the lines of metrics.jsonl, by update; the last line of an update counts.

    Args:
        lines: Of metrics.jsonl.
        split: "train" or an evaluation set.
        name: Of the figure.
        factor: Of the unit.
    """
    found = {line["step"]: line[name] for line in lines if line.get("split") == split and name in line}
    return [(step, _drawable(value, factor)) for step, value in sorted(found.items())]


def _drawable(value: float | None, factor: float) -> float | None:
    """Returns a value that the axes' arithmetic can take: of a diverged run it may be near the end of the floats."""
    if value is None or abs(value) > _LARGEST:
        return None
    return 0.0 if abs(value) < 1 / _LARGEST else factor * value


def _thin(points: Points) -> Points:
    """At most `_MAX_POINTS`: of each stretch its smallest and its largest value, so that no peak is lost."""
    if len(points) <= _MAX_POINTS:
        return points
    stretches = _MAX_POINTS // 2 - 1
    thinned: list[tuple[float, float | None]] = []
    for i in range(stretches):
        stretch = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        known = [(update, value) for update, value in stretch if value is not None]
        if known:
            thinned += sorted({min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])})
        else:
            thinned.append((stretch[0][0], None))
    return thinned if thinned[-1] == points[-1] else [*thinned, points[-1]]


def _marks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, some five of them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if rough <= factor * unit * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _log_marks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, (last - first) // 5)
    return [10.0**exponent for exponent in range(first, last + stride, stride)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
