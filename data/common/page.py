"""Builds the frame that all HTML pages share: one file, no network, light and dark colors, tables that sort.

`page.html.jinja` has the head, the colors and the script; the doctor's page and the error report extend it.
`player.html.jinja` has the audio player with its waveform, `marks.html.jinja` the marks of wrong transcripts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from pathlib import Path

import jinja2
import numpy as np
import soundfile

_WAVE_WIDTH, _WAVE_HEIGHT = 160, 32  # of the picture that player.html.jinja draws
_WAVE_COLUMNS = 80


def page_environment(folder: str | os.PathLike[str]) -> jinja2.Environment:
    """Returns an environment that renders the templates of a folder and escapes all text.

    Its global `wave_path` is the function of that name, for code that may not import this module. `marks.html.jinja`
    calls `marks_prefix` and `marks_file`.

    Args:
        folder: Folder of templates that extend `page.html.jinja`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["content_policy"] = content_policy
    environment.globals["wave_path"] = wave_path
    environment.globals["marks_prefix"], environment.globals["marks_file"] = marks_prefix, marks_file
    return environment


def marks_prefix(kind: str, place: str) -> str:
    """Returns what the names of a page's marks in the browser's storage begin with.

    Pages that are opened as files share one storage. A page that is made again finds its marks.

    Args:
        kind: Kind of the page.
        place: Folder that the page is about.
    """
    return f"earshot {kind} {hashlib.blake2b(place.encode(), digest_size=8).hexdigest()} "


def marks_file(title: str) -> str:
    """Returns the name of the file of exported marks of a run."""
    return f"marks-{re.sub(r'[^A-Za-z0-9_.-]', '_', title)[:80]}.jsonl"


def wave_path(audio: bytes) -> str:
    """Draws the waveform of a clip as an SVG path of at most 800 characters; "" if the clip cannot be decoded.

    Heights are the square root of each column's peak, where full scale is the picture's height: silence is flat and
    quiet speech is visible. The scale is the same for all clips.

    Args:
        audio: An audio file, such as FLAC.
    """
    try:
        samples, _ = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, ValueError):
        return ""
    if not len(samples):
        return ""
    magnitudes = np.nan_to_num(np.abs(samples)).max(axis=1)
    starts = np.unique(np.arange(_WAVE_COLUMNS) * len(magnitudes) // _WAVE_COLUMNS)
    halves = np.sqrt(np.minimum(np.maximum.reduceat(magnitudes, starts), 1.0)) * (_WAVE_HEIGHT // 2)
    step = _WAVE_WIDTH / len(starts)
    return "".join(
        f"M{round(step * (number + 0.5))} {_WAVE_HEIGHT // 2 - half}v{2 * half}"
        for number, half in enumerate(np.maximum(halves.round(), 1).astype(int).tolist())
    )


def content_policy(style: str, script: str, *, connects: bool = False) -> str:
    """Returns the content security policy of a page, which allows its own style, script and audio and nothing else.

    A page shows texts and names that came from elsewhere. They are escaped; if one slips through, it can neither load
    nor run anything. Style and script attributes do not work either.

    Args:
        style: Exact text between the page's style tags.
        script: Exact text between its script tags.
        connects: Whether the page may talk to its own server, and run scripts that its own script makes.
    """
    rules = {
        "default-src": "'none'",
        "style-src": _source(style),
        "script-src": _source(script),
        "media-src": "blob:",
        "img-src": "data:",  # the empty icon
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if connects:
        rules["script-src"] += " blob:"  # the worklet that records; only a script that runs can make one
        rules["connect-src"] = "'self'"
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _source(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
