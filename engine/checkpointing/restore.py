"""Finds a checkpoint and restores the weights of a model from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError, field
from engine.checkpointing import manifest
from engine.checkpointing.compatibility import check_matches, open_checkpoint
from engine.workdir.folder import WorkdirError

WEIGHTS = ("", "raw", "ema")


def find_checkpoint(path_or_workdir: str | os.PathLike[str], *, prefer_best: bool = True) -> str:
    """Returns the path (without .index) of a checkpoint, as `common.workdir_layout.find_checkpoint`.

    Raises:
        WorkdirError: There is no checkpoint.
        MalformedFileError: run.json is damaged.
    """
    if found := layout.find_checkpoint(path_or_workdir, prefer_best=prefer_best):
        return found
    raise WorkdirError(
        f"{os.fspath(path_or_workdir)}: no checkpoint there; give a workdir with {layout.BEST_FOLDER}/ or "
        f"{layout.CHECKPOINTS_FOLDER}/, a folder of checkpoints, or a checkpoint's path without .index"
    )


def find_weights(path_or_workdir: str | os.PathLike[str], *, weights: str = "") -> str:
    """Returns the checkpoint that `restore_weights` restores for the same arguments.

    In a workdir that is the best checkpoint, or the newest one if the best one holds the other kind of weights.

    Raises:
        ValueError: There is no such checkpoint.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"--weights must be raw, ema or empty, got {weights!r}")
    path = find_checkpoint(path_or_workdir)
    kind = _kind_of_best(path) if weights else ""
    if kind in ("", weights):
        return path
    newest = layout.list_own_checkpoints(path_or_workdir, layout.CHECKPOINTS_FOLDER)
    if not newest:
        raise WorkdirError(f"{path}: this best checkpoint only has the {kind} weights; leave --weights out")
    return newest[-1]


def restore_weights(model: tf.Module, path_or_workdir: str | os.PathLike[str], *, weights: str = "") -> str:
    """Restores a model's raw or averaged weights; call in `strategy.scope()`.

    Args:
        model: A built model.
        path_or_workdir: A checkpoint's path, a folder of checkpoints, a workdir, or a converted model's folder.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights: the better ones in best/,
            the raw ones in checkpoints/.

    Returns:
        The path that was restored.

    Raises:
        ValueError: There is no such checkpoint, or it does not have these weights.
    """
    path = find_weights(path_or_workdir, weights=weights)
    restore_model(model, path)
    if weights == "ema" and _kind_of_best(path) != "ema":
        averages = tf.Module()
        averages.shadows = list(model.trainable_variables)
        state = tf.train.Checkpoint(ema=averages)
        if not open_checkpoint(path).has_tensor("ema/shadows/0/.ATTRIBUTES/VARIABLE_VALUE"):
            raise WorkdirError(f"{path}: has no averaged weights (train.ema_decay=0); use --weights=raw")
        check_matches(state, path)
        state.read(path).expect_partial()
    return path


def restore_model(
    model: tf.Module,
    path_or_workdir: str | os.PathLike[str],
    *,
    prefer_best: bool = True,
    leave_out: Sequence[str] = (),
    may_lack: Sequence[tf.Variable] = (),
) -> str:
    """Restores the weights of `model` alone, to evaluate or to start from; call in `strategy.scope()`.

    Args:
        model: A built model, saved as the attribute `model` of the checkpoint.
        path_or_workdir: A checkpoint's path, a folder of checkpoints, a workdir, or a converted model's folder.
        prefer_best: In a workdir, whether to look into best/ before checkpoints/, or after it.
        leave_out: Attributes of the model that keep their values, such as a head for another alphabet; the checkpoint
            may lack them.
        may_lack: Variables that keep their values if the checkpoint lacks them.

    Returns:
        The path that was restored.

    Raises:
        WorkdirError: There is no checkpoint or it is of another model; nothing was changed.
    """
    path = find_checkpoint(path_or_workdir, prefer_best=prefer_best)
    children = tf.train.TrackableView.children(model)
    wanted = {name: child for name, child in children.items() if name not in leave_out}
    unknown = [name for name in leave_out if name not in children]
    if unknown:
        raise ValueError(f"the model has no attribute {unknown[0]!r}; it has {', '.join(sorted(children))}")
    # Stands for the model without what is left out.
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(**wanted))
    if damage := manifest.find_damage(path):
        raise WorkdirError(f"{path} is damaged: {damage}; use another checkpoint, or a copy of this one")
    check_matches(checkpoint, path, leave_out=[f"model/{name}" for name in leave_out], may_lack=may_lack)
    # The optimizer's variables stay unread on purpose.
    checkpoint.read(path).expect_partial()
    return path


def step_of(path: str) -> int:
    """Returns the update at which a checkpoint was saved, 0 if unknown.

    Args:
        path: Path of the checkpoint without .index.

    Raises:
        WorkdirError: The file is unreadable.
    """
    reader = open_checkpoint(path)
    key = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    if reader.has_tensor(key):
        return int(reader.get_tensor(key))
    # The best checkpoint has no counter in it, but the update as its number.
    return layout.checkpoint_number(path) or 0


def read_best_record(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the content of best.json in the folder of a best checkpoint, None if there is none.

    Raises:
        WorkdirError: It is damaged.
    """
    path = storage.join(folder, layout.BEST_FILE)
    if not storage.is_file(path):
        return None
    try:
        record = layout.read_object(path)
        for name, kind in {"metric": str, "value": float, "weights": str}.items():
            field(record, name, kind, path)
    except MalformedFileError as error:
        raise WorkdirError(f"{error}; remove the file") from error
    return record


def _kind_of_best(path: str) -> str:
    """Returns "raw" or "ema" for a best checkpoint, "" for any other."""
    record = read_best_record(storage.parent(path))
    return "" if record is None else record["weights"]
