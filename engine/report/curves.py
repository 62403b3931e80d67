"""Computes the curves of metrics over updates as numbers for an SVG that a template draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 420, 170
_MAX_POINTS = 400  # of a line; more points would not be visible
_LOG_FROM = 50.0  # the axis is logarithmic if the largest value is more than 50 times the smallest
_NUM_COLORS = 6
_LARGEST = 1e30

Points = Sequence[tuple[float, float | None]]
"""(update, value); None breaks the line."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a figure, in the picture's units.

    Attributes:
        name: Name in the legend.
        color: Index in the page's palette.
        segments: Points of each unbroken piece, in the form of SVG's polyline.
        marks: (x, y, tooltip) of single values; empty if there are too many.
    """

    name: str
    color: int
    segments: list[str]
    marks: list[tuple[float, float, str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of curves over updates.

    Attributes:
        title: Title with the unit.
        y_name: Name of the value axis with its unit.
        lines: At least one line.
        x_ticks: (x, label) along the axis of updates.
        y_ticks: (y, label) along the axis of values.
        is_log: True if the axis of values is logarithmic.
    """

    title: str
    y_name: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    is_log: bool


def draw(
    title: str,
    series: Mapping[str, Points],
    *,
    y_name: str = "",
    colors: Sequence[str] = (),
    may_be_log: bool = True,
) -> Figure | None:
    """Returns a figure of some series; None if no series has a value.

    Args:
        title: Title of the figure.
        series: Points by the name in the legend.
        y_name: Name of the value axis, with its unit; "" = the title.
        colors: Names in the order of the palette, so that a name has the same color in every figure.
        may_be_log: Allows a logarithmic axis for values that are far apart; a linear axis always contains 0.
    """
    kept = {name: _thin(points) for name, points in series.items() if _known(points)}
    if not kept:
        return None
    axes = _Axes.around(list(itertools.chain(*kept.values())), may_be_log=may_be_log)
    order = [*colors, *(name for name in kept if name not in colors)]
    return Figure(
        title=title,
        y_name=y_name or title,
        lines=[_line(name, points, axes, order.index(name) % _NUM_COLORS) for name, points in kept.items()],
        x_ticks=axes.x_ticks(),
        y_ticks=axes.y_ticks(),
        is_log=axes.is_log,
    )


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Maps updates and values to the picture's units."""

    last_update: float
    y_marks: list[float]
    is_log: bool

    @classmethod
    def around(cls, points: Points, *, may_be_log: bool) -> _Axes:
        values = [value for _, value in _known(points)]
        low, high = min(values), max(values)
        is_log = may_be_log and low > 0 and high / low > _LOG_FROM
        y_marks = _log_marks(low, high) if is_log else _marks(min(0.0, low), high)
        return cls(max(update for update, _ in points) or 1.0, y_marks, is_log)

    def x_of(self, update: float) -> float:
        return round(WIDTH * update / self.last_update, 1)

    def y_of(self, value: float) -> float:
        low, high = self.y_marks[0], self.y_marks[-1]
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return round(HEIGHT * (1 - (value - low) / (high - low)), 1)

    def x_ticks(self) -> list[tuple[float, str]]:
        """Returns (x, label) of each whole update that is a round number."""
        marks = [mark for mark in _marks(0.0, self.last_update) if mark <= self.last_update and mark == int(mark)]
        return [(self.x_of(mark), f"{mark:,.0f}") for mark in marks]

    def y_ticks(self) -> list[tuple[float, str]]:
        """Returns (y, label) of each mark."""
        return [(self.y_of(mark), _number(mark)) for mark in self.y_marks]


def _line(name: str, points: Points, axes: _Axes, color: int) -> Line:
    segments: list[list[str]] = [[]]
    marks = []
    for update, value in points:
        if value is None:
            segments.append([])
            continue
        x, y = axes.x_of(update), axes.y_of(value)
        segments[-1].append(f"{x:g},{y:g}")
        marks.append((x, y, f"{name}, update {update:,.0f}: {_number(value)}"))
    return Line(
        name=name,
        color=color,
        segments=[" ".join(piece) for piece in segments if len(piece) > 1],
        marks=marks if len(marks) <= _MAX_POINTS // 10 else [],
    )


def series_of(lines: Iterable[Mapping[str, Any]], split: str, name: str, *, factor: float = 1.0) -> Points:
    """Returns one metric of one split by update; the last line of an update counts.

    Args:
        lines: Lines of metrics.jsonl.
        split: "train" or an evaluation set.
        name: Name of the metric.
        factor: Conversion factor to the unit of the figure.
    """
    found = {line["step"]: line[name] for line in lines if line.get("split") == split and name in line}
    return [(step, _drawable(value, factor)) for step, value in sorted(found.items())]


def _drawable(value: float | None, factor: float) -> float | None:
    """Returns a value that the axes can handle: a diverged run has values near the limits of floats."""
    if value is None or abs(value) > _LARGEST:
        return None
    return 0.0 if abs(value) < 1 / _LARGEST else factor * value


def _thin(points: Points) -> Points:
    """Keeps at most `_MAX_POINTS`, the smallest and the largest value of each stretch, so that no peak is lost."""
    if len(points) <= _MAX_POINTS:
        return points
    stretches = _MAX_POINTS // 2 - 1
    thinned: list[tuple[float, float | None]] = []
    for i in range(stretches):
        stretch = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        if known := _known(stretch):
            thinned += sorted({min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])})
        else:
            thinned.append((stretch[0][0], None))
    return thinned if thinned[-1] == points[-1] else [*thinned, points[-1]]


def _known(points: Points) -> list[tuple[float, float]]:
    return [(update, value) for update, value in points if value is not None]


def _marks(low: float, high: float) -> list[float]:
    """Returns about five round numbers that contain `low` and `high`."""
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
