"""What a model starts with, layer by layer: loaded or fresh, trained or frozen, and how many parameters."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import tensorflow as tf

from engine.protocols import AcousticModel


def model_report(model: AcousticModel, *, loaded: Iterable[tf.Variable], loaded_word: str = "loaded") -> list[str]:
    """Returns a table: a line for each group of layers and state, in Keras' order (trained ones first), and their sum.

    Variables belong together if their names are equal up to the number of a layer, or else up to the first slash:
    "encoder/layers/0/..." and "encoder/layers/11/..." do. The head is called so.

    Args:
        model: Its variables exist.
        loaded: Variables whose values were read from somewhere; the others are fresh.
        loaded_word: What to call them.
    """
    loaded_refs = {variable.ref() for variable in loaded}
    trained_refs = {variable.ref() for variable in model.trainable_variables}
    head_refs = {variable.ref() for variable in model.head_variables}
    paths = {variable.ref(): variable.name.split(":")[0].split("/") for variable in model.variables}
    # A scope that all of a published model's names begin with says nothing.
    shared = len(os.path.commonprefix([path[:-1] for ref, path in paths.items() if ref not in head_refs]))

    sizes: dict[tuple[str, str], int] = {}
    numbers: dict[tuple[str, str], set[int]] = {}
    for variable in model.variables:
        ref = variable.ref()
        path = ["head", ""] if ref in head_refs else paths[ref][shared:]
        number = next((i for i, part in enumerate(path[:-1]) if part.isdecimal()), None)
        name = "/".join(path[:number]) if number else path[0]
        state = loaded_word if ref in loaded_refs else "fresh"
        key = (name, state if ref in trained_refs else f"{state}, frozen")
        sizes[key] = sizes.get(key, 0) + math.prod(variable.shape)
        if number:
            numbers.setdefault(key, set()).add(int(path[number]))

    num_trained = count_parameters(model.trainable_variables)
    rows = [(_label(name, numbers.get((name, state))), f"{size:,}", state) for (name, state), size in sizes.items()]
    rows.append(("all", f"{sum(sizes.values()):,}", f"{num_trained:,} trained"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{name.ljust(widths[0])}  {size.rjust(widths[1])}  {state}" for name, size, state in rows]


def count_parameters(variables: Iterable[tf.Variable]) -> int:
    """Returns how many numbers some variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def _label(name: str, numbers: set[int] | None) -> str:
    """Returns "layers 0-11" for consecutive layers, "layers (3)" for three scattered ones."""
    if not numbers:
        return name
    first, last = min(numbers), max(numbers)
    if len(numbers) == 1:
        return f"{name} {first}"
    return f"{name} {first}-{last}" if len(numbers) == last - first + 1 else f"{name} ({len(numbers)})"
