"""Writes the doctor's reports: doctor.json for programs, and doctor.html for people, one file without network."""

from __future__ import annotations

import base64
import json
import os
from datetime import datetime
from pathlib import Path

from common import storage
from data.common.files import write_text_atomic
from data.common.page import page_environment, wave_path
from data.doctor.cleaning import write_cleaned
from data.doctor.report import DoctorReport, Histogram, verdict

JSON_NAME, HTML_NAME = "doctor.json", "doctor.html"
_TEMPLATE = "doctor.html.jinja"
_WIDTH, _HEIGHT = 300, 110  # of a histogram's bars


def write_report(report: DoctorReport, folder: str | os.PathLike[str], *, title: str) -> None:
    """Writes FOLDER/doctor.json, FOLDER/doctor.html and the manifests in FOLDER/cleaned, each atomically.

    Args:
        report: Result of the doctor.
        folder: Output folder, created if absent.
        title: Name of the run.
    """
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    page = render_page(report, title=title, created=created, place=storage.real(folder))
    fields = report.to_json(title=title, created=created)
    write_text_atomic(storage.join(folder, JSON_NAME), json.dumps(fields, ensure_ascii=False, indent=1) + "\n")
    write_text_atomic(storage.join(folder, HTML_NAME), page)
    write_cleaned(report.cleaned, folder)


def render_page(report: DoctorReport, *, title: str, created: str, place: str = "") -> str:
    """Renders the page as HTML.

    Args:
        report: Result of the doctor.
        title: Name of the run.
        created: Time in ISO format.
        place: Folder of the run, by which a browser tells the marks of this page from those of others.
    """
    places = list(report.clips)
    audio = [report.clips[place] for place in places]
    first_example = len(audio)  # an example has two clips
    audio += [content for example in report.examples for content in (example.original, example.altered)]
    return (
        page_environment(Path(__file__).parent)
        .get_template(_TEMPLATE)
        .render(
            title=title,
            created=created,
            verdict=verdict(report.num_errors, report.num_warnings),
            report=report,
            place=place,
            bars=bars,
            ticks=ticks,
            count_ticks=count_ticks,
            clip_of={place: number for number, place in enumerate(places)},
            first_example=first_example,
            clips=[base64.b64encode(content).decode("ascii") for content in audio],
            waves=[wave_path(content) for content in audio],
            width=_WIDTH,
            height=_HEIGHT,
        )
    )


def bars(histogram: Histogram) -> list[tuple[float, float, float, float, str]]:
    """Returns (x, y, width, height, tooltip) of each bar that is not empty, in the picture's units."""
    most, step = max(*histogram.counts, 1), _WIDTH / len(histogram.counts)
    found = []
    for i, count in enumerate(histogram.counts):
        if count:
            high = max(1.0, _HEIGHT * count / most)
            label = f"{_number(histogram.edges[i])} to {_number(histogram.edges[i + 1])}: {count:,}"
            found.append((round(i * step, 2), round(_HEIGHT - high, 2), round(step - 0.8, 2), round(high, 2), label))
    return found


def ticks(histogram: Histogram) -> list[tuple[float, str]]:
    """Returns (x, label) of five marks along the horizontal axis."""
    first, last = histogram.edges[0], histogram.edges[-1]
    return [(round(_WIDTH * i / 4, 1), _number(first + (last - first) * i / 4)) for i in range(5)]


def count_ticks(histogram: Histogram) -> list[tuple[float, str]]:
    """Returns (y, label) of at most five round counts along the vertical axis, 0 first."""
    most = max(*histogram.counts, 1)
    unit = 10 ** max(len(str(most)) - 2, 0)
    step = next(step for step in (1, 2, 5, 10, 20, 25, 50) if most <= 4.99 * step * unit) * unit
    return [(round(_HEIGHT * (1 - count / most), 2), f"{count:,}") for count in range(0, most + 1, step)]


def _number(value: float) -> str:
    """Returns a number with three significant digits and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
