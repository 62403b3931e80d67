"""Renders HTML pages in one shared frame: a single file without network access, light and dark, with sortable tables.

`page.html.jinja` has the head, the colors and the script; the doctor's page and the error report extend it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import jinja2


def page_environment(folder: str | os.PathLike[str]) -> jinja2.Environment:
    """Returns the Jinja environment of a folder of templates that extend `page.html.jinja`; it escapes all text.

    Args:
        folder: Folder of the templates.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["content_policy"] = content_policy
    return environment


def content_policy(style: str, script: str) -> str:
    """Returns a content security policy that allows only the page's own style, script and embedded audio.

    A page shows texts and names from outside. They are escaped; if one is not, it still cannot load or run anything.
    Style and script attributes do not work either.

    Args:
        style: Exact content of the page's style element.
        script: Exact content of the page's script element.
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
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _source(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
