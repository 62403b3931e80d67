"""What a SavedModel asks of whoever loads it."""

from __future__ import annotations

from pathlib import Path

from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2


def functions_to_compile(graph: graph_pb2.GraphDef) -> list[str]:
    """Names of the functions that XLA must compile: they run only where its compiler is linked in."""
    return [function.signature.name for function in graph.library.function if function.attr["_XlaMustCompile"].b]


def read_graph(folder: str | Path) -> graph_pb2.GraphDef:
    """The graph of a SavedModel with its functions."""
    content = Path(folder, "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
