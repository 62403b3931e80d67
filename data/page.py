"""The frame that every page of ours shares: one file of HTML, no network, light and dark, tables that sort.

`page.html.jinja` has the head, the colours and the script; the doctor's page and the error report fill it in.
"""

from __future__ import annotations

import os
from pathlib import Path

import jinja2


def page_environment(folder: str | os.PathLike[str]) -> jinja2.Environment:
    """Returns what renders the templates of a folder; they extend `page.html.jinja`. All text is escaped.

    Args:
        folder: Of the templates.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
