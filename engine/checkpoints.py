"""Checkpoints: saved at fixed updates, restored only where they match, and the best one kept."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from engine import files
from engine.workdir import WorkdirError

CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"
# Prefix of the checkpoint in a folder that holds a model alone, such as a converted one.
WEIGHTS_FILE = "weights"
_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


class CheckpointManager(tf.train.CheckpointManager):
    """Saves at multiples of an interval, restores only what matches; for `orbit.Controller`.

    TensorFlow's own manager saves at the first opportunity and counts the interval from there, so
    that a resumed run saves at other updates than an uninterrupted one; and it restores a
    checkpoint of another model without a word.
    """

    def __init__(
        self,
        *,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        global_step: tf.Variable,
        every_updates: int,
        keep: int,
        init_fn: Any = None,
    ) -> None:
        """Reads the state of `directory`; nothing is restored yet.

        Args:
            checkpoint: tf.train.Checkpoint(model=..., optimizer=..., global_step=..., ...), all of
                it built. Saved and restored as a whole.
            directory: Usually WORKDIR/checkpoints.
            global_step: Counts the updates; compared with the interval.
            every_updates: Save once whenever a multiple of this has been reached. The controller
                asks at the end of each inner loop, so the loop's length should divide it.
            keep: Number of latest checkpoints to keep.
            init_fn: Called without arguments when there is nothing to restore.

        Raises:
            ValueError: `every_updates` or `keep` is not positive.
        """
        if every_updates < 1 or keep < 1:
            raise ValueError(
                f"checkpoint.every_updates ({every_updates}) and checkpoint.keep ({keep}) must be at least 1"
            )
        super().__init__(
            checkpoint,
            os.fspath(directory),
            max_to_keep=keep,
            step_counter=global_step,
            checkpoint_interval=every_updates,
            init_fn=init_fn,
        )
        self._global_step = global_step
        self._step_at_last_save = 0

    def save(self, checkpoint_number=None, check_interval=True, options=None):
        """Saves if a multiple of the interval was passed since the last save, or unconditionally.

        Returns:
            The checkpoint's path, or None if nothing was saved; never two saves at one step.
        """
        step = int(self._global_step.numpy())
        interval = self.checkpoint_interval
        if check_interval and step // interval == self._step_at_last_save // interval:
            return None
        path = super().save(checkpoint_number, check_interval=False, options=options)
        self._step_at_last_save = step
        return path

    def restore_or_initialize(self):
        """Restores the latest checkpoint if there is one, and checks first that it matches.

        Returns:
            The path restored, or None.

        Raises:
            WorkdirError: The checkpoint is damaged or of other variables; nothing was changed.
        """
        if self.latest_checkpoint is not None:
            check_matches(self.checkpoint, self.latest_checkpoint)
        path = super().restore_or_initialize()
        self._step_at_last_save = int(self._global_step.numpy())
        return path


class BestCheckpoint:
    """Keeps exactly one checkpoint, the one with the best value; the value outlives the process.

    The folder holds the checkpoint and `best.json` with the metric's name, its value and the step.
    """

    def __init__(
        self,
        *,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        global_step: tf.Variable,
        higher_is_better: bool = False,
    ) -> None:
        """Reads what an earlier process left in `directory`.

        Args:
            checkpoint: What to save; with an attribute `model` for `restore_model`.
            directory: Usually WORKDIR/best.
            global_step: Numbers the checkpoint.
            higher_is_better: Whether larger values are better; not so for error rates.
        """
        self._manager = tf.train.CheckpointManager(checkpoint, os.fspath(directory), max_to_keep=1)
        self._record_path = Path(directory) / "best.json"
        self._global_step = global_step
        self._higher_is_better = higher_is_better
        self._record: dict[str, Any] | None = None
        # Without its checkpoint a value is of no use: the next one is the best.
        if self._record_path.exists() and self._manager.latest_checkpoint is not None:
            try:
                self._record = json.loads(self._record_path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                message = f"{self._record_path}: not JSON ({error}); remove the file"
                raise WorkdirError(message) from error

    @property
    def value(self) -> float | None:
        """Best value so far, or None."""
        return None if self._record is None else float(self._record["value"])

    def save_if_better(self, value: float, *, metric: str) -> bool:
        """Saves if `value` is strictly better than the best one of the same metric; NaN never is.

        Args:
            value: Value that the variables of this moment have reached.
            metric: Its name. A value of another metric is not compared with, but replaced.

        Returns:
            Whether it saved.
        """
        if value != value:
            return False
        if self._record is not None and self._record["metric"] == metric:
            best = float(self._record["value"])
            if not (value > best if self._higher_is_better else value < best):
                return False
        step = int(self._global_step.numpy())
        self._manager.save(checkpoint_number=step)
        # The value comes last: killed in between, the old value stands and the same evaluation,
        # when it is repeated, saves again.
        self._record = {"metric": metric, "value": float(value), "step": step}
        files.write_json_atomic(self._record_path, self._record)
        return True


def find_checkpoint(path_or_workdir: str | os.PathLike[str], *, prefer_best: bool = True) -> str:
    """Returns the path (without .index) of the checkpoint that `path_or_workdir` stands for.

    Args:
        path_or_workdir: A checkpoint's path, a folder of checkpoints, a workdir, or the folder of a converted model.
        prefer_best: In a workdir, whether to look into best/ before checkpoints/, or after it.

    Raises:
        WorkdirError: There is no checkpoint.
    """
    path = os.fspath(path_or_workdir)
    for prefix in (path, os.path.join(path, WEIGHTS_FILE)):
        if os.path.exists(prefix + ".index"):
            return prefix
    if path.endswith(".index") and os.path.exists(path):
        return path.removesuffix(".index")
    folders = [os.path.join(path, BEST_FOLDER), os.path.join(path, CHECKPOINTS_FOLDER)]
    for folder in [*(folders if prefer_best else reversed(folders)), path]:
        found = tf.train.latest_checkpoint(folder)
        if found is not None:
            return found
    raise WorkdirError(
        f"{path}: no checkpoint there; give a workdir with {BEST_FOLDER}/ or {CHECKPOINTS_FOLDER}/,"
        " a folder of checkpoints, or a checkpoint's path without .index"
    )


def step_of(path: str) -> int:
    """Returns the update at which a checkpoint was saved, 0 if it does not say.

    Args:
        path: As `find_checkpoint` returns it.

    Raises:
        WorkdirError: The file is unreadable.
    """
    reader = _open(path)
    key = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    if reader.has_tensor(key):
        return int(reader.get_tensor(key))
    # Without the counter in it (the best weights alone), it is still numbered by the update.
    number = path.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def restore_model(
    model: tf.Module,
    path_or_workdir: str | os.PathLike[str],
    *,
    prefer_best: bool = True,
    leave_out: Sequence[str] = (),
) -> str:
    """Restores the weights of `model` alone, to evaluate or as a start; call in `strategy.scope()`.

    Args:
        model: A built model, saved as the attribute `model` of the checkpoint.
        path_or_workdir: See `find_checkpoint`.
        prefer_best: See `find_checkpoint`.
        leave_out: Attributes of the model that keep their values, such as a head for another
            alphabet; the checkpoint may have them or not.

    Returns:
        The path that was used.

    Raises:
        WorkdirError: There is no checkpoint or it is of another model; nothing was changed.
    """
    path = find_checkpoint(path_or_workdir, prefer_best=prefer_best)
    parts = tf.train.TrackableView.children(model)
    wanted = {name: part for name, part in parts.items() if name not in leave_out}
    unknown = [name for name in leave_out if name not in parts]
    if unknown:
        raise ValueError(f"the model has no part {unknown[0]!r}; it has {', '.join(sorted(parts))}")
    # Stands for the model, without what is left out.
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(**wanted))
    check_matches(checkpoint, path, leave_out=[f"model/{name}" for name in leave_out])
    # The optimizer's part stays unread, on purpose.
    checkpoint.read(path).expect_partial()
    return path


def check_matches(checkpoint: tf.train.Checkpoint, path: str, *, leave_out: Sequence[str] = ()) -> None:
    """Checks that `path` has a value for every variable of `checkpoint`, and no variable too many.

    Whole parts that only the file has (an optimizer, when the weights alone are wanted) are
    allowed; within a part that both have, the variables and their shapes must be the same.

    Args:
        checkpoint: What would be restored; its variables exist already.
        path: A checkpoint's path without .index.
        leave_out: Paths of parts of the file, such as "model/head", that are not looked at.

    Raises:
        WorkdirError: The file is unreadable or does not match; names the first variable.
    """
    reader = _open(path)
    if not reader.has_tensor(_OBJECT_GRAPH_KEY):
        raise WorkdirError(f"{path}: not written by tf.train.Checkpoint; convert it first")
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH_KEY))
    shapes = reader.get_variable_to_shape_map()
    differences = _find_differences(checkpoint, graph, shapes, frozenset(leave_out))
    if differences:
        # The model's first: the optimizer's only follow from them.
        _, first = min(differences, key=lambda difference: not difference[0].startswith("model/"))
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise WorkdirError(f"{path}: {first}{more}; it was made with another model or optimizer")


def _open(path: str) -> Any:
    try:
        return tf.train.load_checkpoint(path)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise WorkdirError(f"{path}: not a readable checkpoint ({reason})") from error


def _find_differences(
    root: tf.train.Checkpoint,
    graph: trackable_object_graph_pb2.TrackableObjectGraph,
    shapes: Mapping[str, Sequence[int]],
    leave_out: frozenset[str],
) -> list[tuple[str, str]]:
    """Walks objects and file side by side, as TensorFlow matches them; returns (path, what) pairs."""
    children_of = tf.train.TrackableView.children
    differences = []
    only_objects: list[tuple[str, Any]] = []
    only_nodes: list[tuple[str, int]] = []
    # Objects are kept, not their ids alone, so that no id is used twice.
    node_of = {id(root): (root, 0)}
    object_of = {0: id(root)}
    queue: collections.deque[tuple[str, Any, int]] = collections.deque([("", root, 0)])
    while queue:
        path, obj, node = queue.popleft()
        if isinstance(obj, tf.Variable):
            keys = [attribute.checkpoint_key for attribute in graph.nodes[node].attributes]
            stored_shape, shape = tuple(shapes[keys[0]]) if keys else None, tuple(obj.shape)
            if stored_shape is None:
                differences.append((path, f"holds no value for {path} {shape}"))
            elif stored_shape != shape:
                differences.append((path, f"{path} has shape {stored_shape} there, {shape} here"))
        stored = {child.local_name: child.node_id for child in graph.nodes[node].children}
        live = children_of(obj)
        for name, child in live.items():
            child_path = f"{path}/{name}" if path else name
            child_node = stored.get(name)
            if obj is root and name == "save_counter":
                continue  # Counts saves; TensorFlow makes it when it likes.
            if id(child) not in node_of and child_node is not None and child_node not in object_of:
                node_of[id(child)] = (child, child_node)
                object_of[child_node] = id(child)
                queue.append((child_path, child, child_node))
            elif child_node is None or object_of.get(child_node) != id(child):
                # Unknown to the file, or shared there in another way than here.
                only_objects.append((child_path, child))
                if child_node is not None:
                    only_nodes.append((child_path, child_node))
        # At the root the file may have more: whole parts that are not wanted now.
        for name, child_node in stored.items() if obj is not root else ():
            if name not in live and f"{path}/{name}" not in leave_out:
                only_nodes.append((f"{path}/{name}", child_node))

    # What one path does not lead to, another may have reached: layers are often shared.
    while only_objects:
        path, obj = only_objects.pop(0)
        if id(obj) not in node_of:
            node_of[id(obj)] = (obj, -1)
            if isinstance(obj, tf.Variable):
                differences.append((path, f"holds no value for {path} {tuple(obj.shape)}"))
            only_objects.extend((f"{path}/{n}", child) for n, child in children_of(obj).items())
    while only_nodes:
        path, node = only_nodes.pop(0)
        if node not in object_of:
            object_of[node] = -1
            if graph.nodes[node].attributes:
                differences.append((path, f"holds {path}, for which there is no variable here"))
            for child in graph.nodes[node].children:
                only_nodes.append((f"{path}/{child.local_name}", child.node_id))
    return differences
