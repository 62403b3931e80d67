"""Writes a manifest with checksums beside each checkpoint, finds damaged ones and removes leftovers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from common import storage
from common.workdir_layout import DAMAGED_FOLDER, MANIFEST_SUFFIX, list_checkpoints, read_manifest
from engine.common import files

_CHUNK_BYTES = 1 << 22


def files_of(checkpoint: str) -> list[str]:
    """Returns the paths of a checkpoint's existing files without its manifest."""
    folder, _, name = checkpoint.rpartition("/")
    pattern = re.compile(re.escape(name) + r"\.(index|data-\d+-of-\d+)")
    return [storage.join(folder, found) for found in storage.list_names(folder or ".") if pattern.fullmatch(found)]


def write_manifest(checkpoint: str, about: Mapping[str, Any]) -> None:
    """Flushes a checkpoint's files to disk and writes their sizes and SHA-256 sums beside them.

    Args:
        checkpoint: Path without .index of a complete checkpoint.
        about: Further fields of the manifest: config, versions, data.

    Raises:
        FileNotFoundError: The checkpoint is gone.
    """
    sums = {
        _name(path): {"bytes": storage.state(path).num_bytes, "sha256": _sha256(path, sync=True)}
        for path in files_of(checkpoint)
    }
    if not sums:
        raise FileNotFoundError(f"{checkpoint}: its files disappeared right after they were written")
    files.write_json_atomic(checkpoint + MANIFEST_SUFFIX, {"files": sums, **about})


def find_damage(checkpoint: str) -> str | None:
    """Returns a description of the damage in a checkpoint's files, or None.

    Compares every byte with the manifest's checksums. Without a manifest (the process was killed before it was
    written, or the checkpoint comes from elsewhere), reads every tensor, which verifies TensorFlow's own checksums.

    Args:
        checkpoint: Path without .index.
    """
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return _find_unreadable(checkpoint)
    for name, wanted in manifest["files"].items():
        path = storage.join(storage.parent(checkpoint), name)
        if not storage.is_file(path):
            return f"{name} is missing"
        size = storage.state(path).num_bytes
        if size != wanted.get("bytes"):
            return f"{name} has {size} bytes instead of {wanted.get('bytes')}"
        if _sha256(path) != wanted.get("sha256"):
            return f"{name} does not match its SHA-256 sum"
    return None


def _find_unreadable(checkpoint: str) -> str | None:
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # TensorFlow raises DataLossError for damaged bytes, or whatever error its parsers run into.
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError, TypeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def set_aside(checkpoint: str) -> str:
    """Moves a checkpoint's files into `DAMAGED_FOLDER` beside it, which no run reads; returns the folder."""
    folder = storage.join(storage.parent(checkpoint), DAMAGED_FOLDER)
    storage.make_dirs(folder)
    for path in [*files_of(checkpoint), checkpoint + MANIFEST_SUFFIX]:
        if storage.is_file(path):
            storage.replace(path, storage.join(folder, _name(path)))
    return folder


def sweep(directory: str | os.PathLike[str]) -> None:
    """Removes what killed processes leave in a checkpoint folder: half-written files, data and manifests without index.

    Only the process that holds the workdir's lock may call this.
    """
    kept = {_name(path) for path in list_checkpoints(directory)}
    for name in storage.list_names(directory):
        path = storage.join(directory, name)
        if name.endswith("_temp") and storage.is_dir(path):
            storage.remove_tree(path)
        elif ".tempstate" in name or (name.startswith(".") and name.endswith(".tmp")):
            storage.remove(path)
        else:
            owner = re.fullmatch(r"(.+-\d+)\.(data-\d+-of-\d+|manifest\.json)", name)
            if owner and owner[1] not in kept:
                storage.remove(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _sha256(path: str, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with storage.named_errors(path), storage.open_binary(path) as file:
        if sync and not storage.is_remote(path):
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
