"""Runs one conversion, in the process that `engine.inference.export.portable.convert` starts: FOLDER NAME OUTPUT.

If it fails, the last line on standard output is the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine.inference.export.portable import WAVEFORM

_OPSET = 17


def convert(folder: str, name: str) -> bytes:
    """Returns the content of a converted model's file.

    Args:
        folder: Folder written by `engine.inference.export.portable.save_portable`.
        name: One of `engine.inference.export.portable.FILES`.
    """
    if name == "onnx":
        return _to_onnx(folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    if name != "tflite_float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "tflite_float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _to_onnx(folder: str) -> bytes:
    """Converts the graph with its weights as inputs, and inserts the weights afterwards.

    tf2onnx copies everything in each of its steps, about 40 times the weights, which is 15 GB for the base model. ONNX
    Runtime folds operations on constant weights when it loads the file.
    """
    import tf2onnx
    from onnx import numpy_helper

    loaded = tf.saved_model.load(folder)  # keep a reference: it keeps the variables alive
    (function,) = loaded.logits.concrete_functions
    handlers: dict[str, Any] = {"Erfc": (_erfc, []), "ComplexAbs": (_complex_abs, [])}
    split = _weights_as_inputs(function, loaded.weights)
    if split is None:
        proto, _ = tf2onnx.convert.from_function(
            loaded.logits, input_signature=[WAVEFORM], opset=_OPSET, custom_op_handlers=handlers
        )
        return proto.SerializeToString()
    graph, weights = split
    waveform, logits = function.inputs[0].name, function.outputs[0].name
    proto, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=[waveform, *weights],
        output_names=[logits],
        opset=_OPSET,
        custom_op_handlers=handlers,
        tensors_to_rename={waveform: WAVEFORM.name, logits: "logits"},
    )
    inputs = [found for found in proto.graph.input if found.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    for name, variable in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(variable.numpy(), name))
    return proto.SerializeToString()


def _weights_as_inputs(
    function: Any, variables: Sequence[tf.Variable]
) -> tuple[tf.compat.v1.GraphDef, dict[str, tf.Variable]] | None:
    """Replaces the variables of a concrete function's graph by placeholders.

    Returns:
        The graph and {name of a placeholder: its variable}; None if the graph does more with a variable than read it,
        as a function that calls a SavedModel from TF-Hub does.
    """
    of_handle = {id(variable.handle): variable for variable in variables}
    num_inputs = len(function.inputs) - len(function.captured_inputs)
    captured = {
        placeholder.op.name: of_handle.get(id(handle))
        for placeholder, handle in zip(function.inputs[num_inputs:], function.captured_inputs, strict=True)
    }
    graph = function.graph.as_graph_def()
    weights: dict[str, tf.Variable] = {}
    placeholders: dict[str, str] = {}  # name of a capture -> name of its placeholder
    nodes = []
    for node in graph.node:
        if node.name in captured:
            continue
        name = next((name for name in node.input if name.split(":")[0] in captured), None)
        if name is not None:
            variable = captured[name.split(":")[0]]
            if node.op != "ReadVariableOp" or variable is None:
                return None
            dtype = node.attr["dtype"].type
            node.attr.clear()
            if name in placeholders:  # a repeated read
                node.op, node.input[:] = "Identity", [placeholders[name]]
                node.attr["T"].type = dtype
            else:
                node.op, node.input[:] = "Placeholder", []
                node.attr["dtype"].type = dtype
                node.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
                placeholders[name] = node.name
                weights[f"{node.name}:0"] = variable
        nodes.append(node)
    without = tf.compat.v1.GraphDef(node=nodes, versions=graph.versions, library=graph.library)
    return without, weights


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """Converts erfc(x) of TensorFlow's GELU to 1 - erf(x), because ONNX has no erfc."""
    erf = ctx.make_node("Erf", [node.input[0]])
    one = ctx.make_const(f"{name}_one", np.float32(1))
    node.type, node.domain = "Sub", ""
    ctx.replace_inputs(node, [one.output[0], erf.output[0]])
    return node


def _complex_abs(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """Converts |z| of a spectrum, whose first axis tf2onnx makes (real, imaginary); its own needs a known shape."""
    square = ctx.make_node("Mul", [node.input[0], node.input[0]])
    first = ctx.make_const(f"{name}_first", np.array([0], np.int64))
    total = ctx.make_node("ReduceSum", [square.output[0], first.output[0]], attr={"keepdims": 0})
    node.type, node.domain = "Sqrt", ""
    ctx.replace_inputs(node, [total.output[0]])
    return node


def main(folder: str, name: str, output: str) -> int:
    """Writes the file and returns 0, or prints why it cannot and returns 1."""
    try:
        Path(output).write_bytes(convert(folder, name))
    except Exception as error:  # converters raise errors of any kind
        print((str(error).strip().splitlines() or [type(error).__name__])[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
