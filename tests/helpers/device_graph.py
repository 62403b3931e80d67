"""What no TPU can run, found in the graph of a traced function and of every function that it calls.

What XLA has no kernel for, its compiler refuses by itself (`jit_compile=True`); this finds what its CPU compiler lets
pass, or drops, and a TPU does not take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

_CALLBACKS = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2", "Timestamp", "Assert")
_CTC_KERNELS = ("CTCLoss", "CTCGreedyDecoder", "CTCBeamSearchDecoder")
# Sparse by name alone: labels that are numbers of classes.
_DENSE_BY_NATURE = ("SparseSoftmaxCrossEntropyWithLogits",)
# Handles of variables and lists of tensors: their shape is not that of a tensor on the device.
_HANDLES = (tf.resource, tf.variant)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One operation that a TPU cannot run.

    Attributes:
        kind: "host callback", "string", "float16", "unknown shape", "sparse tensor" or "CPU kernel".
        op: Its type, such as "EagerPyFunc".
        name: Its name in its graph, with the functions around it, "/" between.
    """

    kind: str
    op: str
    name: str


def find_faults(function: tf.types.experimental.ConcreteFunction) -> list[Fault]:
    """Returns every operation of `function` that a TPU cannot run, each once, also those in branches and loops."""
    return [Fault(kind, op.type, f"{place}{op.name}") for place, op in operations(function) for kind in _kinds(op)]


def op_types(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Returns the types of all its operations, those in functions included."""
    return {op.type for _, op in operations(function)}


def operations(function: tf.types.experimental.ConcreteFunction) -> Iterator[tuple[str, tf.Operation]]:
    """All its operations, those in functions included, each with its place: the names around it, "" at the top."""
    return _operations(function.graph, "", set())


def _operations(graph: tf.Graph, place: str, seen: set[str]) -> Iterator[tuple[str, tf.Operation]]:
    for op in graph.get_operations():
        yield place, op
        called = [called.name for value in op.node_def.attr.values() for called in (value.func, *value.list.func)]
        if _is_call(op):
            called.append(op.type)
        for name in called:
            if name and name not in seen:
                seen.add(name)
                yield from _operations(_graph_of(name, graph, op), f"{place}{op.name}/", seen)


def _is_call(op: tf.Operation) -> bool:
    """Whether its type is the name of a function, as where TensorFlow 1 calls one."""
    return op.graph._is_function(op.type)


def _graph_of(name: str, graph: tf.Graph, op: tf.Operation) -> tf.Graph:
    """The graph of a function that `op` calls; there is no public way to it."""
    function = graph._get_function(name)
    if hasattr(function, "graph"):
        return function.graph
    # A loop as TensorFlow 1 made them, such as TensorFlow's dense CTC's: its shapes are those of what goes in.
    definition = type(function.definition)()
    definition.CopyFrom(function.definition)
    definition.ClearField("arg_attr")
    with graph.as_default():
        return function_def_to_graph(definition, input_shapes=[tensor.shape for tensor in op.inputs])


def _kinds(op: tf.Operation) -> Iterator[str]:
    tensors = [*op.inputs, *op.outputs]
    if op.type in _CALLBACKS or op.type.endswith("Summary"):
        yield "host callback"
    if any(tensor.dtype.base_dtype == tf.string for tensor in tensors):
        yield "string"
    if any(tensor.dtype.base_dtype == tf.float16 for tensor in tensors):
        yield "float16"
    if op.type in _CTC_KERNELS:
        yield "CPU kernel"
    if "Sparse" in op.type and op.type not in _DENSE_BY_NATURE:
        yield "sparse tensor"
    # A branch or a loop has placeholders for what only its other branch or its condition needs: nothing reads them.
    outputs = [tensor for tensor in op.outputs if op.type != "Placeholder" or tensor.consumers()]
    if not _is_call(op) and any(t.dtype.base_dtype not in _HANDLES and not t.shape.is_fully_defined() for t in outputs):
        yield "unknown shape"
