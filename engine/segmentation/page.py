"""Renders the page of the utterances that were cut, with the worst to listen to."""

from __future__ import annotations

import base64
import collections
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from engine.inference.transcriber import SAMPLE_RATE
from engine.segmentation.results import CutRecording

_TEMPLATES = Path(__file__).parent
_NUM_SHOWN = 100
_NUM_CLIPS = 40
_MAX_CLIP_SECS = 20.0


def render_page(
    found: Sequence[CutRecording],
    *,
    page_environment: Callable[[str | os.PathLike[str]], jinja2.Environment],
    stream_audio: Callable[[str], Iterator[np.ndarray]],
    encode_flac: Callable[[np.ndarray], bytes],
) -> str:
    """Returns the page as HTML that needs no network.

    Args:
        found: The recordings.
        page_environment: Folder of templates -> what renders them in the frame that all pages share.
        stream_audio: path -> blocks float32 [N] at 16 kHz.
        encode_flac: float32 [N] -> a FLAC file.
    """
    environment = page_environment(_TEMPLATES)
    kept = [(one, cut) for one in found for cut in one.stretches if not cut.reason]
    worst = sorted(kept, key=lambda pair: pair[1].confidence)[:_NUM_SHOWN]
    clips = _read_clips([(one.path, cut.start_secs, cut.end_secs) for one, cut in worst[:_NUM_CLIPS]], stream_audio)
    encoded = {place: encode_flac(waveform) for place, waveform in clips.items()}
    number_of = {place: number for number, place in enumerate(encoded)}
    wave_path: Any = environment.globals["wave_path"]
    rows = []
    for one, cut in worst:
        place = (one.path, cut.start_secs, cut.end_secs)
        number = number_of.get(place)
        rows.append(
            {
                "confidence": cut.confidence,
                "name": os.path.basename(one.path),
                "offset": cut.start_secs,
                "duration": cut.duration_secs,
                "text": cut.text,
                "clip": number,
                "wave": wave_path(encoded[place]) if number is not None else "",
            }
        )
    return environment.get_template("segments.html.jinja").render(
        num_cuts=len(kept),
        kept_hours=sum(cut.duration_secs for _, cut in kept) / 3600,
        hours=sum(one.duration_secs for one in found) / 3600,
        num_files=len(found),
        reasons=count_reasons(found),
        worst=rows,
        clips=[base64.b64encode(content).decode("ascii") for content in encoded.values()],
    )


def count_reasons(found: Sequence[CutRecording]) -> list[dict[str, Any]]:
    """Returns for each reason of what is left out its stretches, words and seconds, the most seconds first."""
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in found:
        for cut in one.stretches:
            if cut.reason:
                totals[cut.reason].update(count=1, num_words=cut.num_words, millis=round(1000 * cut.duration_secs))
    rows = [
        {"reason": reason, "count": one["count"], "num_words": one["num_words"], "secs": one["millis"] / 1000}
        for reason, one in totals.items()
    ]
    return sorted(rows, key=lambda row: (-row["secs"], row["reason"]))


def _read_clips(
    places: Sequence[tuple[str, float, float]], stream_audio: Callable[[str], Iterator[np.ndarray]]
) -> dict[tuple[str, float, float], np.ndarray]:
    """Returns the samples of stretches, reading each recording once."""
    found: dict[tuple[str, float, float], np.ndarray] = {}
    for path in dict.fromkeys(path for path, _, _ in places):
        wanted = {place: [np.zeros(0, np.float32)] for place in places if place[0] == path}
        position = 0
        for block in stream_audio(path):
            for place, pieces in wanted.items():
                first = round(place[1] * SAMPLE_RATE) - position
                last = round(min(place[2], place[1] + _MAX_CLIP_SECS) * SAMPLE_RATE) - position
                if first < len(block) and last > 0:
                    pieces.append(block[max(first, 0) : last])
            position += len(block)
        found.update({place: np.concatenate(pieces) for place, pieces in wanted.items()})
    return found
