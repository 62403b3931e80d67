"""Summarizes a model's variables by layer: loaded or fresh, trained or frozen, and their number of parameters."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from engine.protocols import AcousticModel


def model_report(model: AcousticModel, *, loaded: Iterable[tf.Variable], loaded_word: str = "loaded") -> list[str]:
    """Returns the lines of a table: one for each group of layers and state, in Keras' order, and their sum.

    Variables form a group if their names are equal up to the number of a layer, or else up to the first slash:
    "encoder/layers/0/..." and "encoder/layers/11/..." do. The head's group is called "head".

    Args:
        model: The model; its variables exist.
        loaded: Variables whose values were loaded; the others are fresh.
        loaded_word: Word for the state of loaded variables.
    """
    states = _states(model, loaded, loaded_word)
    sizes: dict[tuple[str, str], int] = {}
    numbers: dict[tuple[str, str], set[int]] = {}
    for variable, path, state in zip(model.variables, _paths(model), states, strict=True):
        number = next((i for i, part in enumerate(path[:-1]) if part.isdecimal()), None)
        key = ("/".join(path[:number]) if number else path[0], state)
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


def _states(model: AcousticModel, loaded: Iterable[tf.Variable], loaded_word: str) -> list[str]:
    loaded_refs = {variable.ref() for variable in loaded}
    trained_refs = {variable.ref() for variable in model.trainable_variables}
    words = [loaded_word if variable.ref() in loaded_refs else "fresh" for variable in model.variables]
    is_trained = [variable.ref() in trained_refs for variable in model.variables]
    return [word if trained else f"{word}, frozen" for word, trained in zip(words, is_trained, strict=True)]


def _paths(model: AcousticModel) -> list[Sequence[str]]:
    """Returns the name of each variable as a path, without a scope that all names share."""
    heads = {variable.ref() for variable in model.head_variables}
    paths = [variable.name.split(":")[0].split("/") for variable in model.variables]
    is_head = [variable.ref() in heads for variable in model.variables]
    others = [path[:-1] for path, head in zip(paths, is_head, strict=True) if not head]
    shared = len(os.path.commonprefix(others))
    return [["head", ""] if head else path[shared:] for path, head in zip(paths, is_head, strict=True)]


def _label(name: str, numbers: set[int] | None) -> str:
    """Returns "layers 0-11" for consecutive layers, "layers (3)" for three scattered ones."""
    if not numbers:
        return name
    first, last = min(numbers), max(numbers)
    if len(numbers) == 1:
        return f"{name} {first}"
    return f"{name} {first}-{last}" if len(numbers) == last - first + 1 else f"{name} ({len(numbers)})"
