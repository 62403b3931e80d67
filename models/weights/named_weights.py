"""Turns the name of published weights into a local folder: downloads once, converts once, keeps both in a cache.

hf://OWNER/NAME[@REVISION][#LANG]                         a model of the Hugging Face Hub; #LANG picks an MMS adapter
kaggle://OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]        a SavedModel of Kaggle Models, formerly TensorFlow Hub
https://HOST/NAME.tar.gz                                  an archive (.tar, .tar.gz, .tgz, .zip) of any such folder
https://HOST/NAME.pt                                      a checkpoint of fairseq or fairseq2
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from common import json_files
from common.weight_names import HUGGING_FACE, KAGGLE, is_weight_name, split_language
from models.weights import archives, hugging_face_hub, kaggle
from models.weights.cache import cache_folder, keep, storage_error, temporary_folder

_FORMAT = 1  # of converted folders; raise it when the converter writes other numbers, so that old folders are not used
_CONTENT_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Convert = Callable[[Path, Path], None]


def local_folder(name: str, *, convert: Convert) -> str:
    """Returns a local folder of weights that a model can start from; a path is returned as it is.

    Args:
        name: Path, or one of the forms above.
        convert: Writes a folder of ours from one of Hugging Face or fairseq: `convert(input, output)`.

    Raises:
        ValueError: If the name is malformed, or the weights cannot be used.
        OSError: If they cannot be fetched or stored. Both are one line that says what to do.
    """
    if not is_weight_name(name):
        return name
    folder = fetch(name)
    if _is_published(folder):
        return os.fspath(_converted(name, folder, convert))
    return os.fspath(folder)


def fetch(name: str) -> Path:
    """Downloads the weights of a name, unless the cache has them, and returns the folder as it was published."""
    if name.startswith(HUGGING_FACE):
        return hugging_face_hub.fetch_model(name)
    if name.startswith(KAGGLE):
        return kaggle.fetch_model(name)
    return archives.fetch_archive(name)


def _converted(name: str, folder: Path, convert: Convert) -> Path:
    """Converts a Hugging Face folder once; equal content is found again under any name."""
    target = cache_folder() / "converted" / f"{_FORMAT}-{_content_key(folder, split_language(name)[1])}"
    if target.is_dir():
        return target
    try:
        with temporary_folder(target.parent) as temporary:
            convert(folder, temporary / "weights")
            return keep(temporary / "weights", target)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise storage_error(name, error) from error


def _content_key(folder: Path, language: str) -> str:
    digest = hashlib.sha256(language.encode())
    for path in sorted(folder.iterdir()):
        if path.name.startswith("adapter.") and path.name not in hugging_face_hub.adapter_files(language):
            continue  # the folder collects those of all languages that were ever asked for
        if (
            path.name in hugging_face_hub.METADATA
            or path.suffix in (".safetensors", ".bin", ".h5", ".pt", ".model")
            or path.name.endswith(".index.json")
            or path.match("dict.*.txt")
        ):
            # The Hub's cache names a file by the hash of its content and links to it.
            name = path.resolve().name
            content = name if _CONTENT_HASH.fullmatch(name) else _digest_of(path)
            digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()[:32]


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_published(folder: Path) -> bool:
    """Returns whether a folder is one of Hugging Face or fairseq, and not one of ours or a SavedModel."""
    if not (folder / "config.json").exists():
        return any(folder.glob("*.pt"))
    try:
        return "model_type" in json_files.read_object(folder / "config.json")
    except (OSError, ValueError):
        return False
