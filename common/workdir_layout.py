"""Names the files of a workdir, and finds the checkpoints that its run wrote.

A run writes an id to WORKDIR/run.json at its first start, and to the manifest beside each of its checkpoints. A
checkpoint with another id belongs to another run and is ignored. One without an id belongs to the workdir that it lies
in.
"""

from __future__ import annotations

import os
from typing import Any

from absl import logging

from common import storage
from common.json_files import MalformedFileError, optional_field, parse_object
from common.renamed import rename_fields, replace_accum_steps

PathLike = str | os.PathLike[str]

RUN_FILE = "run.json"
CONFIG_FILE = "config.json"
VOCAB_FILE = "vocab.json"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.html"
COMPARISON_FILE = "comparison.html"
PREDICTIONS_FILE = "predictions.jsonl"
SKIPPED_FILE = "skipped_updates.jsonl"
FINISHED_FILE = "finished.json"
STOPPED_FILE = "stopped.json"
LOCK_FILE = ".lock"
DECODE_FILE = "decode.json"
CHECKPOINTS_FOLDER = "checkpoints"
# TensorFlow's list of the checkpoints in a folder; only its own manager reads it.
TENSORFLOW_LIST = "checkpoint"
# Folder beside checkpoints for damaged ones, which are never deleted.
DAMAGED_FOLDER = "damaged"
BEST_FOLDER = "best"
BEST_FILE = "best.json"
EVAL_FOLDER = "eval"
TENSORBOARD_FOLDER = "tensorboard"
CONTINUOUS_FOLDER = "continuous_eval"
# Holds the earlier runs of the workdir, each as a workdir.
EARLIER_FOLDER = "earlier_runs"
# Holds a folder for each other checkpoint, of this run or of another, that --mode=eval --checkpoint=OTHER evaluates.
OTHERS_FOLDER = "eval_of"
# Prefix of the checkpoint in a folder that holds only a model, such as a converted one.
WEIGHTS = "weights"
MANIFEST_SUFFIX = ".manifest.json"
_MAX_CONFIG_DEPTH = 20
_OBJECT_NAMES = frozenset(dir(object))


def folders_above(path: PathLike) -> tuple[str, str, str]:
    """Returns a path and the two folders above it, one of which has the config of a checkpoint in WORKDIR/best."""
    folder = storage.absolute(path)
    return folder, storage.parent(folder), storage.parent(storage.parent(folder))


def find_above(path: PathLike, name: str) -> str | None:
    """Returns the file `name` at a path or up to two folders above it, or None if there is none."""
    places = (storage.join(folder, name) for folder in folders_above(path))
    return next((place for place in places if storage.is_file(place)), None)


def read_object(path: PathLike) -> dict[str, Any]:
    """Reads a JSON object from a path or a URL.

    Raises:
        FileNotFoundError: If there is no such file.
        MalformedFileError: If it is not a JSON object.
    """
    return parse_object(storage.read_bytes(path), os.fspath(path))


def read_config(path: PathLike) -> dict[str, Any]:
    """Reads the config.json of a run or of a converted folder, and refuses files that no run could have written.

    Raises:
        FileNotFoundError: If there is no such file.
        MalformedFileError: If it is damaged, nested more deeply than a config, or has a name that no field has.
    """
    fields = read_object(path)
    stack: list[tuple[Any, int]] = [(fields, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > _MAX_CONFIG_DEPTH:
            raise MalformedFileError(f"{os.fspath(path)} is not the config of a run (nested too deeply)")
        if isinstance(value, dict):
            dotted = next((name for name in value if "." in name), None)
            where = f"{os.fspath(path)} is not the config of a run"
            if dotted is not None:
                raise MalformedFileError(f"{where} ({dotted!r}: field names have no dots)")
            # ml_collections cannot hold the names that every Python object has.
            if (special := next((name for name in value if name in _OBJECT_NAMES), None)) is not None:
                raise MalformedFileError(f"{where} ({special!r} is no field name)")
            stack.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            stack.extend((child, depth + 1) for child in value)
    return replace_accum_steps(rename_fields(fields))


def read_run_id(workdir: PathLike) -> str:
    """Returns the id of the run that a workdir belongs to, or "" if it is not recorded.

    Raises:
        MalformedFileError: If run.json is damaged.
    """
    path = storage.join(workdir, RUN_FILE)
    if not storage.is_file(path):
        return ""
    try:
        return optional_field(read_object(path), "run_id", str, path, "")
    except MalformedFileError as error:
        raise MalformedFileError(
            f"{error}; delete it: the next start of the run reads its id from the newest checkpoint"
        ) from error


def read_manifest(checkpoint: PathLike) -> dict[str, Any] | None:
    """Returns the manifest of a checkpoint (its path without .index), or None if it is absent or damaged."""
    try:
        manifest = read_object(f"{os.fspath(checkpoint)}{MANIFEST_SUFFIX}")
    except (OSError, MalformedFileError):
        return None
    sums = manifest.get("files")
    is_whole = isinstance(sums, dict) and all(isinstance(entry, dict) for entry in sums.values())
    return manifest if is_whole else None


def run_id_of(checkpoint: PathLike) -> str:
    """Returns the id of the run that wrote a checkpoint, or "" if it is not recorded."""
    run_id = (read_manifest(checkpoint) or {}).get("run_id", "")
    return run_id if isinstance(run_id, str) else ""


def checkpoint_number(path: PathLike) -> int | None:
    """Returns the number of a checkpoint, which is its update, from its path without .index; None if it has none."""
    _, dash, number = os.fspath(path).rpartition("/")[2].rpartition("-")
    return int(number) if dash and number.isdecimal() else None


def list_checkpoints(folder: PathLike) -> list[str]:
    """Returns the paths (without .index) of the numbered checkpoints in a folder, newest last.

    They are read from the folder itself, because TensorFlow's list, the file `checkpoint`, may be missing or damaged,
    and a run that finds no checkpoint starts again from zero.
    """
    names = [name.removesuffix(".index") for name in storage.list_names(folder) if name.endswith(".index")]
    found = [(number, name) for name in names if (number := checkpoint_number(name)) is not None]
    return [storage.join(folder, name) for _, name in sorted(found)]


def list_own_checkpoints(workdir: PathLike, name: str) -> list[str]:
    """Returns the checkpoints in a folder of a workdir that its run wrote, newest last; warns about others.

    Args:
        workdir: Workdir of the run.
        name: `CHECKPOINTS_FOLDER` or `BEST_FOLDER`.

    Raises:
        MalformedFileError: If run.json is damaged.
    """
    paths = list_checkpoints(storage.join(workdir, name))
    run_id = read_run_id(workdir) if paths else ""
    if not run_id:
        return paths
    theirs = [path for path in paths if run_id_of(path) not in ("", run_id)]
    if theirs:
        logging.warning(
            "%s is ignored: it belongs to run %s, the workdir to run %s", theirs[-1], run_id_of(theirs[-1]), run_id
        )
    return [path for path in paths if path not in theirs]


def find_checkpoint(path_or_workdir: PathLike, *, prefer_best: bool = True) -> str | None:
    """Returns the path (without .index) of the checkpoint at a path, or None if there is none.

    Args:
        path_or_workdir: Path of a checkpoint, folder of checkpoints, workdir, or folder of a converted model.
        prefer_best: Whether to look into best/ of a workdir before checkpoints/, or after it.

    Raises:
        MalformedFileError: If run.json is damaged.
    """
    path = os.fspath(path_or_workdir)
    for prefix in (path, storage.join(path, WEIGHTS)):
        if storage.is_file(f"{prefix}.index"):
            return prefix
    if path.endswith(".index") and storage.is_file(path):
        return path.removesuffix(".index")
    names = (BEST_FOLDER, CHECKPOINTS_FOLDER) if prefer_best else (CHECKPOINTS_FOLDER, BEST_FOLDER)
    for name in names:
        if found := list_own_checkpoints(path, name):
            return found[-1]
    found = list_checkpoints(path)
    return found[-1] if found else None
