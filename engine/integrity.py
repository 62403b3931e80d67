"""Whether a checkpoint's files are what was written: a manifest beside each, damaged ones set aside, litter swept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from engine import files

# Where checkpoints go that cannot be used; never deleted by us.
DAMAGED_FOLDER = "damaged"
_MANIFEST_SUFFIX = ".manifest.json"
_CHUNK_BYTES = 1 << 22


def list_checkpoints(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the paths (without .index) of the numbered checkpoints in a folder, newest last.

    They are read off the folder itself: TensorFlow's own list, the file `checkpoint`, may be missing or damaged, and a
    run that therefore found nothing would begin again from zero.
    """
    found = []
    for path in Path(directory).glob("*-*.index"):
        prefix = path.with_suffix("")
        number = prefix.name.rpartition("-")[2]
        if number.isdecimal():
            found.append((int(number), os.fspath(prefix)))
    return [path for _, path in sorted(found)]


def files_of(checkpoint: str) -> list[Path]:
    """Returns the files of a checkpoint that exist, its manifest not among them."""
    path = Path(checkpoint)
    pattern = re.compile(re.escape(path.name) + r"\.(index|data-\d+-of-\d+)")
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))


def write_manifest(checkpoint: str, about: Mapping[str, Any]) -> None:
    """Writes the sizes and SHA-256 sums of a checkpoint's files beside it, once their bytes are on the disk.

    Args:
        checkpoint: Path without .index, completely written.
        about: What else to keep there: config, versions, data.
    """
    sums = {
        file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file, sync=True)} for file in files_of(checkpoint)
    }
    files.write_json_atomic(checkpoint + _MANIFEST_SUFFIX, {"files": sums, **about})


def read_manifest(checkpoint: str) -> dict[str, Any] | None:
    """Returns a checkpoint's manifest, or None if there is none that can be read."""
    try:
        manifest = json.loads(Path(checkpoint + _MANIFEST_SUFFIX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None


def find_damage(checkpoint: str) -> str | None:
    """Returns what is wrong with a checkpoint's files, or None.

    With a manifest every byte is compared. Without one (the process was killed before it was written, or the
    checkpoint is from elsewhere) every tensor is read, which checks TensorFlow's own sums.

    Args:
        checkpoint: Path without .index.
    """
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return _find_unreadable(checkpoint)
    for name, wanted in manifest["files"].items():
        path = Path(checkpoint).parent / name
        if not path.exists():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != wanted["bytes"]:
            return f"{name} has {size} bytes, {wanted['bytes']} were written"
        if _sha256(path) != wanted["sha256"]:
            return f"{name} has other bytes than were written"
    return None


def _find_unreadable(checkpoint: str) -> str | None:
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # What TensorFlow raises for bytes that are not a checkpoint's: DataLossError, and what its parsers stumble over.
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError, TypeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def set_aside(checkpoint: str) -> str:
    """Moves a checkpoint's files into a folder of their own beside it, where no run looks; returns the folder."""
    folder = Path(checkpoint).parent / DAMAGED_FOLDER
    folder.mkdir(exist_ok=True)
    for file in [*files_of(checkpoint), Path(checkpoint + _MANIFEST_SUFFIX)]:
        if file.exists():
            os.replace(file, folder / file.name)
    return os.fspath(folder)


def sweep(directory: str | os.PathLike[str]) -> None:
    """Removes what killed processes leave in a folder of checkpoints: half-written ones, lone data, lone manifests.

    Only the process that holds the workdir's lock may call it.
    """
    folder = Path(directory)
    if not folder.is_dir():
        return
    kept = {Path(path).name for path in list_checkpoints(folder)}
    for path in folder.iterdir():
        if path.is_dir() and path.name.endswith("_temp"):
            shutil.rmtree(path, ignore_errors=True)
        elif ".tempstate" in path.name or (path.name.startswith(".") and path.name.endswith(".tmp")):
            path.unlink(missing_ok=True)
        else:
            owner = re.fullmatch(r"(.+-\d+)\.(data-\d+-of-\d+|manifest\.json)", path.name)
            if owner and owner[1] not in kept:
                path.unlink(missing_ok=True)


def _sha256(path: Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
