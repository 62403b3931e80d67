"""Renders the page for people that the server answers at its root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jinja2

from engine.inference.serving.http_server import Limits

TEMPLATES = Path(__file__).parent


def render_page(
    page_environment: Callable[[str | os.PathLike[str]], jinja2.Environment], *, limits: Limits, max_audio_secs: float
) -> bytes:
    """Returns the page: one file of HTML that needs nothing but its server.

    Args:
        page_environment: Folder of templates -> what renders them in the frame that all pages share.
        limits: Limits of a client, which the page tells before it sends what would be refused.
        max_audio_secs: Longest recording.
    """
    template = page_environment(TEMPLATES).get_template("server_page.html.jinja")
    return template.render(
        name=limits.name, max_body_bytes=limits.max_body_bytes, max_audio_secs=max_audio_secs
    ).encode()
