"""Whether a checkpoint has just the variables that are there to be restored."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from engine.workdir.folder import WorkdirError

_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def check_matches(
    checkpoint: tf.train.Checkpoint, path: str, *, leave_out: Sequence[str] = (), optional: Collection[str] = ()
) -> None:
    """Checks that `path` has a value for every variable of `checkpoint`, and no variable too many.

    Whole parts that only the file has (an optimizer, when the weights alone are wanted) are
    allowed; within a part that both have, the variables and their shapes must be the same.

    Args:
        checkpoint: What would be restored; its variables exist already.
        path: A checkpoint's path without .index.
        leave_out: Paths of parts of the file, such as "model/head", that are not looked at.
        optional: Names of whole parts that the file need not have.

    Raises:
        WorkdirError: The file is unreadable or does not match; names the first variable.
    """
    reader = open_checkpoint(path)
    if not reader.has_tensor(_OBJECT_GRAPH_KEY):
        raise WorkdirError(f"{path}: not written by tf.train.Checkpoint; convert it first")
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH_KEY))
    shapes = reader.get_variable_to_shape_map()
    missing = set(optional) - {child.local_name for child in graph.nodes[0].children}
    differences = _find_differences(checkpoint, graph, shapes, frozenset(leave_out))
    differences = [(where, what) for where, what in differences if where.partition("/")[0] not in missing]
    if differences:
        # The model's first: the optimizer's only follow from them.
        _, first = min(differences, key=lambda difference: not difference[0].startswith("model/"))
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise WorkdirError(f"{path}: {first}{more}; it was made with another model or optimizer")


def open_checkpoint(path: str) -> Any:
    """Returns TensorFlow's reader of a checkpoint.

    Raises:
        WorkdirError: It cannot be read.
    """
    try:
        # Not tf.train.load_checkpoint: it takes the name for a folder where a file system says that it is one.
        return tf.compat.v1.train.NewCheckpointReader(path)
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
