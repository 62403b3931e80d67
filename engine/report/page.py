"""The error report as HTML: one file that needs no network, audio included."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from engine.report.curves import HEIGHT, WIDTH, Figure, Points, draw, series_of
from engine.report.sets import SetReport

_TRAIN = "train"

TEMPLATES = Path(__file__).parent

PageEnvironment = Callable[[Path], jinja2.Environment]
AudioFn = Callable[[str, str], bytes | None]
"""(set, utterance id) -> a FLAC file, None where it cannot be had."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """Audio on a page.

    Attributes:
        encoded: Base64 of FLAC files.
        number_of: (set, utterance id) -> its place among them.
    """

    encoded: list[str]
    number_of: dict[tuple[str, str], int]


def collect_clips(
    sets: Iterable[SetReport], audio: AudioFn, *, max_bytes: int, source_of: Callable[[str], object] = lambda name: name
) -> Clips:
    """Encodes what fits: the worst utterance of each set first, then the second of each, and so on.

    Args:
        sets: Whose utterances are listed.
        audio: Gives the FLAC files.
        max_bytes: Most characters of base64 on the page.
        source_of: What names of sets have in common where they are the same set, decoded in several ways: its audio is
            kept once.
    """
    reports = list(sets)
    clips = Clips([], {})
    known: dict[tuple[object, str], int] = {}
    left = max_bytes
    for rank in range(max((len(report.utterances) for report in reports), default=0)):
        for report in reports:
            if rank >= len(report.utterances) or left <= 0:
                continue
            utterance_id = report.utterances[rank].prediction["utterance_id"]
            key = (source_of(report.name), utterance_id)
            if key not in known:
                content = audio(report.name, utterance_id)
                if content is None:
                    continue
                encoded = base64.b64encode(content).decode("ascii")
                left -= len(encoded)
                if left < 0:
                    continue
                known[key] = len(clips.encoded)
                clips.encoded.append(encoded)
            clips.number_of[report.name, utterance_id] = known[key]
    return clips


def training_figures(lines: Sequence[Mapping[str, Any]], sets: Sequence[str]) -> list[Figure]:
    """Returns loss, word error rate, learning rate and throughput over updates, as far as metrics.jsonl has them."""

    def of(splits: Sequence[str], name: str, factor: float = 1.0) -> dict[str, Points]:
        return {split: series_of(lines, split, name, factor=factor) for split in splits}

    names = [_TRAIN, *sets]
    found = [
        draw("Loss per utterance", of(names, "loss"), colours=names),
        draw("Word error rate, %", of(sets, "wer", 100.0), colours=names, may_be_log=False),
        draw("Learning rate", of([_TRAIN], "learning_rate"), colours=names, may_be_log=False),
        draw("Throughput, seconds of audio a second", of(names, "audio_secs_per_sec"), colours=names),
    ]
    return [figure for figure in found if figure is not None]


def render_report(
    *,
    environment: jinja2.Environment,
    title: str,
    step: int,
    facts: Mapping[str, str],
    figures: Sequence[Figure],
    sets: Sequence[SetReport],
    clips: Clips,
) -> str:
    """Returns the page.

    Args:
        environment: Renders this folder's templates.
        title: Name of the run.
        step: Update of the evaluated weights.
        facts: What to know of the run, in words.
        figures: Curves.
        sets: What was evaluated.
        clips: Audio of their utterances.
    """
    return environment.get_template("report.html.jinja").render(
        title=title,
        created=now(),
        step=step,
        facts=facts,
        figures=figures,
        sets=sets,
        clips=clips,
        width=WIDTH,
        height=HEIGHT,
        percent=percent,
    )


def percent(rate: float | None, digits: int = 2) -> str:
    """Returns a rate in per cent, a dash where there is none."""
    return "–" if rate is None else f"{100 * rate:.{digits}f}"


def now() -> str:
    """Returns the time for a page's head."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
