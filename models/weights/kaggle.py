"""Fetches models of Kaggle, to which those of TensorFlow Hub have moved, through kagglehub."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

from common.readable import describe_error
from common.weight_names import KAGGLE
from models.weights.cache import inner_folder, is_full_or_closed, quiet, storage_error


def fetch_model(name: str) -> Path:
    """Downloads a SavedModel, unless the cache has it, and returns its folder.

    Args:
        name: kaggle://OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; without VERSION the newest.

    Raises:
        ValueError: The name is malformed, or kagglehub is not installed.
        OSError: The model cannot be fetched or stored.
    """
    handle = name.removeprefix(KAGGLE).strip("/")
    if len(handle.split("/")) not in (4, 5):
        raise ValueError(
            f"{name}: not a name of Kaggle Models; write {KAGGLE}OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
        )
    try:
        import kagglehub
    except ImportError as error:
        raise ValueError(f"{name}: kaggle:// needs kagglehub; pip install 'earshot[kaggle]'") from error
    try:
        with quiet("kagglehub"):
            return inner_folder(Path(kagglehub.model_download(handle)))
    except Exception as error:  # the library's transports raise more than one family
        raise _explain(error, name, handle) from error


def _explain(error: Exception, name: str, handle: str) -> Exception:
    """Returns an error of one line for an error of the library: what is wrong, and what to do."""
    from kagglehub import exceptions

    if isinstance(error, exceptions.UnauthenticatedError):
        return OSError(f"{name}: Kaggle asks who you are; set KAGGLE_API_TOKEN, or put kaggle.json into ~/.kaggle")
    if isinstance(error, exceptions.KaggleApiHTTPError):
        return OSError(f"{name}: Kaggle answers {_status_of(error)}")
    if is_full_or_closed(error):
        return storage_error(name, error)
    if "IncompleteRead" in str(error) or isinstance(error, exceptions.DataCorruptionError):
        return OSError(f"{name}: the download broke off; run the same command again, and it goes on")
    if isinstance(error, OSError):  # requests' connection errors are among them
        return OSError(
            f"{name}: cannot be fetched ({describe_error(error, 200)}); check the network; a name with its version, "
            f"{KAGGLE}{'/'.join(handle.split('/')[:4])}/1, is taken from the cache without one"
        )
    if isinstance(error, ValueError):
        return ValueError(f"{name}: {describe_error(error, 200)}")
    return OSError(f"{name}: the download failed ({describe_error(error, 200)}); run the same command again")


def _status_of(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"{status}: no such model, or one whose terms you have to accept on its page first; log in with kaggle.json"
        )
    if status == 404:
        return "404: no such model; check owner, model, framework, variation and version"
    if status == 429:
        return "429 (too many requests); wait some minutes and run the same command again"
    return f"{status}; run the same command again later"


def kaggle_name(url: str) -> str:
    """Returns the kaggle:// name of a handle of tfhub.dev; "" for any other address."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.strip("/").split("/")
    if parts.hostname != "tfhub.dev" or len(path) < 2:
        return ""
    owner, model, version = path[0], path[1], path[-1] if path[-1].isdigit() else "1"
    variation = "-".join(path[1:-1] if path[-1].isdigit() and len(path) > 2 else path[1:])
    return f"{KAGGLE}{owner}/{model}/tensorFlow2/{variation}/{version}"
