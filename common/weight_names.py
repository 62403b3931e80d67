"""How published weights are named: hf://OWNER/NAME[@REVISION], kaggle://OWNER/MODEL/..., https://HOST/NAME.tar.gz."""

from __future__ import annotations

import os
import re
import urllib.parse

HUGGING_FACE, KAGGLE = "hf://", "kaggle://"
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_weight_name(text: str) -> bool:
    """Returns whether `text` names published weights, which are fetched, rather than a path."""
    return text.startswith((HUGGING_FACE, KAGGLE)) or (
        text.startswith(("https://", "http://")) and archive_suffix(text) != ""
    )


def archive_suffix(url: str) -> str:
    """Returns the suffix of an archive at an address; "" if it is none."""
    path = urllib.parse.urlsplit(url).path.lower()
    return next((suffix for suffix in _ARCHIVES if path.endswith(suffix)), "")


def repository_hint(path: str) -> str:
    """Returns what to write instead of a path that is not there but has the form of a model of the Hugging Face Hub."""
    if not _REPOSITORY.fullmatch(path) or os.path.exists(path.partition("/")[0]):
        return ""
    return f"; for the model of this name on the Hugging Face Hub write {HUGGING_FACE}{path}"
