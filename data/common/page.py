"""The frame that every page of ours shares: one file of HTML, no network, light and dark, tables that sort.

`page.html.jinja` has the head, the colours and the script; the doctor's page and the error report fill it in.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import jinja2


def page_environment(folder: str | os.PathLike[str]) -> jinja2.Environment:
    """Returns what renders the templates of a folder; they extend `page.html.jinja`. All text is escaped.

    Args:
        folder: Of the templates.
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


def content_policy(style: str, script: str, *, connects: bool = False) -> str:
    """Returns the content security policy of a page: its own style, its own script, audio out of itself, nothing else.

    A page shows texts and names that came from elsewhere. They are escaped; should one slip through, it loads and runs
    nothing. Attributes with style or script do not work either.

    Args:
        style: What stands between the page's style tags, to the letter.
        script: What stands between its script tags.
        connects: Whether the page may talk to the server that it came from, and run scripts that its own script makes.
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
