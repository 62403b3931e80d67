"""Checks that a checkpoint has exactly the variables that a program wants to restore."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from engine.workdir.folder import WorkdirError

# Variables that TensorFlow adds to the object that it saves: its count of saves, and the preemption handler's count of
# what it saved. They describe one process, and a checkpoint may lack either.
BOOKKEEPING = ("save_counter", "checkpointed_runs")
_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def check_matches(
    checkpoint: tf.train.Checkpoint,
    path: str,
    *,
    leave_out: Sequence[str] = (),
    may_lack: Iterable[tf.Variable] = (),
) -> None:
    """Checks that `path` has a value for every variable of `checkpoint`, and no variable too many.

    The file may have more children at its root (an optimizer, when only the weights are wanted). Below the root, the
    variables and their shapes must be the same.

    Args:
        checkpoint: The object to restore; its variables exist.
        path: Path of the checkpoint without .index.
        leave_out: Paths in the file that are not compared, such as "model/head".
        may_lack: Variables that the file may lack; if it has them, their shapes must be the same.

    Raises:
        WorkdirError: The file is unreadable or does not match; names the first variable.
    """
    reader = open_checkpoint(path)
    if not reader.has_tensor(_OBJECT_GRAPH_KEY):
        raise WorkdirError(f"{path}: not written by tf.train.Checkpoint; convert it first")
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH_KEY))
    comparison = _Comparison(checkpoint, graph, reader.get_variable_to_shape_map(), leave_out)
    comparison.match_shared()
    comparison.report_missing(may_lack={id(variable) for variable in may_lack})
    comparison.report_superfluous()
    if differences := comparison.differences:
        # Differences in the optimizer follow from those in the model, so the model's come first.
        _, first = min(differences, key=lambda difference: not difference[0].startswith("model/"))
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise WorkdirError(f"{path}: {first}{more}; it was saved with another model or optimizer")


def open_checkpoint(path: str) -> Any:
    """Returns TensorFlow's reader of a checkpoint.

    Raises:
        WorkdirError: It cannot be read.
    """
    try:
        # Not tf.train.load_checkpoint, which takes the path for a folder on some remote file systems.
        return tf.compat.v1.train.NewCheckpointReader(path)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise WorkdirError(f"{path}: not a readable checkpoint ({reason})") from error


class _Comparison:
    """Walks live objects and a file's object graph side by side, as TensorFlow matches them.

    Attributes:
        differences: (path, what is wrong) pairs.
    """

    def __init__(
        self,
        root: tf.train.Checkpoint,
        graph: trackable_object_graph_pb2.TrackableObjectGraph,
        shapes: Mapping[str, Sequence[int]],
        leave_out: Collection[str],
    ) -> None:
        self.differences: list[tuple[str, str]] = []
        self._root = root
        self._nodes = graph.nodes
        self._shapes = shapes
        self._leave_out = frozenset(leave_out)
        self._only_objects: list[tuple[str, Any]] = []
        self._only_nodes: list[tuple[str, int]] = []
        # Values keep the objects alive, so that no id is used twice.
        self._matched = {id(root): root}
        self._object_of = {0: id(root)}

    def match_shared(self) -> None:
        """Visits what both sides have, compares shapes, and notes what only one side has."""
        queue: collections.deque[tuple[str, Any, int]] = collections.deque([("", self._root, 0)])
        while queue:
            path, obj, node = queue.popleft()
            self._compare_shape(path, obj, node)
            stored = {child.local_name: child.node_id for child in self._nodes[node].children}
            live = tf.train.TrackableView.children(obj)
            prefix = f"{path}/" if path else ""
            if obj is self._root:
                live = {name: child for name, child in live.items() if name not in BOOKKEEPING}
            else:  # the root of the file may have more children
                self._only_nodes += [(f"{prefix}{name}", stored[name]) for name in stored if name not in live]
            for name, child in live.items():
                if self._match(f"{prefix}{name}", child, stored.get(name)):
                    queue.append((f"{prefix}{name}", child, stored[name]))

    def _match(self, path: str, child: Any, node: int | None) -> bool:
        """Matches an object with a node of the same path; returns whether both are new."""
        if node is None:
            self._only_objects.append((path, child))
            return False
        if id(child) not in self._matched and node not in self._object_of:
            self._matched[id(child)], self._object_of[node] = child, id(child)
            return True
        if self._object_of.get(node) != id(child):  # the file shares objects in another way
            self._only_objects.append((path, child))
            self._only_nodes.append((path, node))
        return False

    def _compare_shape(self, path: str, obj: Any, node: int) -> None:
        if not isinstance(obj, tf.Variable):
            return
        keys = [attribute.checkpoint_key for attribute in self._nodes[node].attributes]
        if not keys:
            self.differences.append((path, f"holds no value for {path} {tuple(obj.shape)}"))
        elif tuple(self._shapes[keys[0]]) != tuple(obj.shape):
            stored = tuple(self._shapes[keys[0]])
            self.differences.append((path, f"{path} has shape {stored} in the file, {tuple(obj.shape)} here"))

    def report_missing(self, *, may_lack: Collection[int] = ()) -> None:
        """Reports variables that the file lacks, but those with the ids `may_lack`.

        Shared layers may have been reached by another path.
        """
        for path, obj in self._only_objects:  # grows on the way
            if id(obj) not in self._matched:
                self._matched[id(obj)] = obj
                if isinstance(obj, tf.Variable) and id(obj) not in may_lack:
                    self.differences.append((path, f"holds no value for {path} {tuple(obj.shape)}"))
                children = tf.train.TrackableView.children(obj)
                self._only_objects.extend((f"{path}/{name}", child) for name, child in children.items())

    def report_superfluous(self) -> None:
        """Reports variables that only the file has."""
        for path, node in self._only_nodes:  # grows on the way
            if node not in self._object_of and path not in self._leave_out:
                self._object_of[node] = -1
                if self._nodes[node].attributes:
                    self.differences.append((path, f"holds {path}, for which there is no variable here"))
                children = self._nodes[node].children
                self._only_nodes.extend((f"{path}/{child.local_name}", child.node_id) for child in children)
