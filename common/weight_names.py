"""Recognizes names of published weights: hf://OWNER/NAME[@REVISION][#LANG], kaggle://OWNER/..., https://HOST/X.tar.gz."""

from __future__ import annotations

import os
import re
import urllib.parse

HUGGING_FACE, KAGGLE = "hf://", "kaggle://"
CHECKPOINT_SUFFIX = ".pt"  # of fairseq; it is kept as it is
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", CHECKPOINT_SUFFIX)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_weight_name(text: str) -> bool:
    """Returns whether `text` names published weights to download, and not a path."""
    return text.startswith((HUGGING_FACE, KAGGLE)) or (
        text.startswith(("https://", "http://")) and archive_suffix(text) != ""
    )


def split_language(name: str) -> tuple[str, str]:
    """Splits hf://OWNER/NAME[@REVISION]#LANG into the name of a model and a language; "" without one."""
    model, _, language = name.partition("#")
    return (model, language) if name.startswith(HUGGING_FACE) else (name, "")


def hub_repository(name: str) -> str:
    """Returns OWNER/NAME of a name on the Hugging Face Hub, without revision and language; "" for other weights."""
    model, _ = split_language(name)
    return model.removeprefix(HUGGING_FACE).partition("@")[0] if model.startswith(HUGGING_FACE) else ""


def archive_suffix(url: str) -> str:
    """Returns the suffix of an archive or a checkpoint at a URL, or "" if it is neither."""
    path = urllib.parse.urlsplit(url).path.lower()
    return next((suffix for suffix in _ARCHIVES if path.endswith(suffix)), "")


def repository_hint(path: str) -> str:
    """Returns a hint for a missing path that looks like the name of a model on the Hugging Face Hub, else ""."""
    if not _REPOSITORY.fullmatch(path) or os.path.exists(path.partition("/")[0]):
        return ""
    return f"; for the model of this name on the Hugging Face Hub write {HUGGING_FACE}{path}"
