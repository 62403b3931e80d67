"""Renders the error report as one HTML file that includes its audio and needs no network."""

from __future__ import annotations

import base64
import bisect
import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from engine.report.curves import HEIGHT, WIDTH, Figure, Points, draw, series_of
from engine.report.facts import RunFacts, Tile
from engine.report.sets import SetReport
from engine.workdir.records import TRAIN_SPLIT

RATE_TITLES = {"wer": "Word error rate, %", "cer": "Character error rate, %"}
# Fixed scales, so that the same length or color means the same on every page.
BAR_SCALES = (0.05, 0.1, 0.25, 0.5, 1.0)  # upper ends of the bars' axis; longer bars are cut off
HEAT_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # between the colors of the confusion matrix

TEMPLATES = Path(__file__).parent

PageEnvironment = Callable[[Path], jinja2.Environment]
AudioFn = Callable[[str, str], bytes | None]
"""(set, utterance id) -> a FLAC file, None if it is not available."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """Audio on a page.

    Attributes:
        encoded: Base64 of FLAC files.
        waves: SVG path of each clip's waveform, "" without one.
        number_of: (set, utterance id) -> index of its clip.
    """

    encoded: list[str]
    waves: list[str]
    number_of: dict[tuple[str, str], int]


def collect_clips(
    sets: Iterable[SetReport],
    audio: AudioFn,
    *,
    max_bytes: int,
    source_of: Callable[[str], object] = lambda name: name,
    wave_path: Callable[[bytes], str] = lambda content: "",
) -> Clips:
    """Encodes the clips that fit: the worst utterance of each set first, then the second of each, and so on.

    Args:
        sets: Reports whose listed utterances get clips.
        audio: Returns the FLAC files.
        max_bytes: Limit of the characters of base64 and of waveforms on the page.
        source_of: Returns the same value for sets that are one set decoded in several ways; they share a clip.
        wave_path: Draws the waveform of a FLAC file as an SVG path.
    """
    reports = list(sets)
    clips = Clips([], [], {})
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
                encoded, wave = base64.b64encode(content).decode("ascii"), wave_path(content)
                left -= len(encoded) + len(wave)
                if left < 0:
                    continue
                known[key] = len(clips.encoded)
                clips.encoded.append(encoded)
                clips.waves.append(wave)
            clips.number_of[report.name, utterance_id] = known[key]
    return clips


def training_figures(
    lines: Sequence[Mapping[str, Any]], sets: Sequence[str], *, metrics: Collection[str] = ("wer",)
) -> list[Figure]:
    """Returns the curves of losses, error rates, learning rate and throughput that metrics.jsonl has.

    Args:
        lines: Lines of metrics.jsonl.
        sets: Names of the evaluated sets.
        metrics: The error rates to draw, of "wer" and "cer".
    """

    def of(splits: Sequence[str], name: str, factor: float = 1.0) -> dict[str, Points]:
        return {split: series_of(lines, split, name, factor=factor) for split in splits}

    names = [TRAIN_SPLIT, *sets]
    auxiliary = {
        "consistency": series_of(lines, TRAIN_SPLIT, "consistency_loss"),
        "intermediate CTC": series_of(lines, TRAIN_SPLIT, "intermediate_ctc_loss"),
    }
    found = [
        draw("Loss per utterance", of(names, "loss"), y_name="loss, nats", colors=names),
        draw("Auxiliary losses per utterance", auxiliary, y_name="loss, nats"),
        *(
            draw(title, of(sets, name, 100.0), y_name=f"{name.upper()}, %", colors=names, may_be_log=False)
            for name, title in RATE_TITLES.items()
            if name in metrics
        ),
        draw("Learning rate", of([TRAIN_SPLIT], "learning_rate"), y_name="rate", colors=names, may_be_log=False),
        draw(
            "Throughput, seconds of audio a second",
            of(names, "audio_secs_per_sec"),
            y_name="audio, s per s",
            colors=names,
        ),
    ]
    return [figure for figure in found if figure is not None]


def render_report(
    *,
    environment: jinja2.Environment,
    title: str,
    step: int,
    facts: RunFacts,
    figures: Sequence[Figure],
    sets: Sequence[SetReport],
    clips: Clips,
    tiles: Sequence[Tile] = (),
    texts: Mapping[tuple[str, str], str] | None = None,
    place: str = "",
) -> str:
    """Renders the error report.

    Args:
        environment: Renders this folder's templates.
        title: Name of the run.
        step: Update of the evaluated weights.
        facts: Config and environment of the run.
        figures: Curves.
        sets: Reports of the evaluated sets.
        clips: Audio of their utterances.
        tiles: Headline numbers.
        texts: (set, utterance id) -> transcript of an utterance that can be marked as wrong.
        place: Folder of the evaluation, by which a browser tells the marks of this page from those of others.
    """
    groups = [group for one in sets for group in (*one.lengths, *one.speakers, *itertools.chain(*one.slices.values()))]
    return environment.get_template("report.html.jinja").render(
        title=title,
        created=now(),
        step=step,
        facts=facts.summary(),
        figures=figures,
        sets=sets,
        clips=clips,
        tiles=tiles,
        fields=facts.fields(),
        texts=texts or {},
        place=place,
        bar_scale=bar_scale([group.words.rate for group in groups]),
        heat_names=heat_names(),
        heat_of=heat_of,
        width=WIDTH,
        height=HEIGHT,
        percent=percent,
    )


def bar_scale(rates: Iterable[float]) -> float:
    """Returns the upper end of the axis that all bars of a page share; the lower end is 0."""
    most = max(rates, default=0.0)
    return next((scale for scale in BAR_SCALES if most <= scale), BAR_SCALES[-1])


def heat_of(ratio: float) -> int:
    """Returns the color step of a ratio in the confusion matrix."""
    return bisect.bisect_right(HEAT_STEPS, ratio)


def heat_names() -> list[str]:
    """Returns the range of each color step, for the legend."""
    ends = [f"{100 * step:g}" for step in HEAT_STEPS]
    middle = [f"{low} to {high} %" for low, high in itertools.pairwise(ends)]
    return [f"below {ends[0]} %", *middle, f"{ends[-1]} % and more"]


def percent(rate: float | None, digits: int = 2) -> str:
    """Returns a rate in percent, a dash if there is none."""
    return "–" if rate is None else f"{100 * rate:.{digits}f}"


def now() -> str:
    """Returns the current local time for the head of a page."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
