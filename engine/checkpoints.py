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
                f"checkpoint.every_updates ({every_updates}) and checkpoint.keep ({keep})"
                " must be at least 1"
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

    @property
    def step(self) -> int | None:
        """Update at which the best value was found, or None."""
        return None if self._record is None else int(self._record["step"])

    @property
    def path(self) -> str | None:
        """Path of the best checkpoint, or None."""
        return self._manager.latest_checkpoint

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
        path_or_workdir: A checkpoint's path, a folder of checkpoints, or a workdir.
        prefer_best: In a workdir, whether to look into best/ before checkpoints/, or after it.

    Raises:
        WorkdirError: There is no checkpoint.
    """
    path = os.fspath(path_or_workdir)
    if os.path.exists(path + ".index"):
        return path
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


def restore_model(
    model: tf.Module, path_or_workdir: str | os.PathLike[str], *, prefer_best: bool = True
) -> str:
    """Restores the weights of `model` alone, to evaluate or as a start; call in `strategy.scope()`.

    Args:
        model: A built model, saved as the attribute `model` of the checkpoint.
        path_or_workdir: See `find_checkpoint`.
        prefer_best: See `find_checkpoint`.

    Returns:
        The path that was used.

    Raises:
        WorkdirError: There is no checkpoint or it is of another model; nothing was changed.
    """
    path = find_checkpoint(path_or_workdir, prefer_best=prefer_best)
    checkpoint = tf.train.Checkpoint(model=model)
    check_matches(checkpoint, path)
    # The optimizer's part stays unread, on purpose.
    checkpoint.read(path).expect_partial()
    return path


def check_matches(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Checks that `path` has a value for every variable of `checkpoint`, and no variable too many.

    Whole parts that only the file has (an optimizer, when the weights alone are wanted) are
    allowed; within a part that both have, the variables and their shapes must be the same.

    Args:
        checkpoint: What would be restored; its variables exist already.
        path: A checkpoint's path without .index.

    Raises:
        WorkdirError: The file is unreadable or does not match; names the first variable.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WorkdirError(f"{path}: not a readable checkpoint ({reason})") from error
    problem = _first_difference(checkpoint, graph, reader.get_variable_to_shape_map())
    if problem:
        raise WorkdirError(f"{path}: {problem}; it was made with another model or optimizer")


def _first_difference(
    root: tf.train.Checkpoint,
    graph: trackable_object_graph_pb2.TrackableObjectGraph,
    shapes: Mapping[str, Sequence[int]],
) -> str:
    """Walks objects and file side by side, as TensorFlow matches them; returns "" if they agree."""
    children_of = tf.train.TrackableView.children
    objects = {id(root): root}  # Seen objects, kept alive so that no id is used twice.
    nodes = {0}
    only_objects: list[tuple[str, Any]] = []
    only_nodes: list[tuple[str, int]] = []
    queue: collections.deque[tuple[str, Any, int]] = collections.deque([("", root, 0)])
    while queue:
        path, obj, node = queue.popleft()
        if isinstance(obj, tf.Variable):
            keys = [attribute.checkpoint_key for attribute in graph.nodes[node].attributes]
            if not keys:
                return f"holds no value for {path} {tuple(obj.shape)}"
            if list(shapes[keys[0]]) != obj.shape.as_list():
                return f"{path} has shape {tuple(shapes[keys[0]])} there, {tuple(obj.shape)} here"
        stored = {child.local_name: child.node_id for child in graph.nodes[node].children}
        live = children_of(obj)
        for name, child in live.items():
            # Counts saves, made by TensorFlow when it likes.
            if obj is root and name == "save_counter":
                continue
            child_path = f"{path}/{name}" if path else name
            if name not in stored:
                only_objects.append((child_path, child))
            elif id(child) not in objects:
                objects[id(child)] = child
                nodes.add(stored[name])
                queue.append((child_path, child, stored[name]))
        if obj is not root:
            only_nodes.extend(
                (f"{path}/{name}", number) for name, number in stored.items() if name not in live
            )

    # What one path does not lead to, another may have reached: layers are often shared.
    missing = []
    while only_objects:
        path, obj = only_objects.pop(0)
        if id(obj) in objects:
            continue
        objects[id(obj)] = obj
        if isinstance(obj, tf.Variable):
            missing.append(f"{path} {tuple(obj.shape)}")
        only_objects.extend((f"{path}/{name}", child) for name, child in children_of(obj).items())
    if missing:
        return f"holds no value for {missing[0]}{_and_others(len(missing) - 1)}"
    leftover = []
    while only_nodes:
        path, node = only_nodes.pop(0)
        if node in nodes:
            continue
        nodes.add(node)
        if graph.nodes[node].attributes:
            leftover.append(path)
        for child in graph.nodes[node].children:
            only_nodes.append((f"{path}/{child.local_name}", child.node_id))
    if leftover:
        return f"holds {leftover[0]}{_and_others(len(leftover) - 1)}, which have no variable here"
    return ""


def _and_others(count: int) -> str:
    return f" and {count} more" if count else ""
