"""Reads tf_model.h5 of the former TensorFlow classes of transformers, and gives its tensors PyTorch's names."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import numpy as np

from models.weights.stored_tensor import StoredTensor, to_float32

# Name of a variable in Keras -> in PyTorch. The axes of a kernel are reversed; of weight normalization Keras has the
# gain with its axes reversed, and the direction as PyTorch has it.
_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_REVERSED = ("kernel", "weight_g")
# Names of the models' first layers. Above them stand those of the class and of the file's groups.
_ROOTS = ("wav2vec2", "hubert", "lm_head", "projector", "classifier")


def open_h5(path: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Opens a file of Keras weights, whole or one shard of several.

    Args:
        path: tf_model.h5, or tf_model-00001-of-00002.h5.
        stack: Closes the file.

    Returns:
        Name that the PyTorch class would have given -> tensor in PyTorch's layout.

    Raises:
        ValueError: If the file is damaged.
    """
    import h5py

    found: dict[str, h5py.Dataset] = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:  # else it has no content
            found[name] = item

    try:
        stack.enter_context(h5py.File(path, "r")).visititems(keep)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({error}); fetch it again") from error

    def read(name: str) -> np.ndarray:
        try:
            return to_float32(path, name, found[name][()])
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: damaged in {name} ({error}); fetch it again") from error

    stored = {name: StoredTensor(tuple(item.shape), functools.partial(read, name)) for name, item in found.items()}
    return rename(stored, path)


def rename(tensors: dict[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """Returns tensors of a TensorFlow class under the names and in the layout of the PyTorch class.

    Raises:
        ValueError: If two of them get the same name.
    """
    renamed: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        theirs = _torch_name(name)
        if theirs in renamed:
            raise ValueError(f"{path}: {theirs} is there twice ({name}); save the model again")
        renamed[theirs] = _reversed(tensor) if _variable(name) in _REVERSED else tensor
    return renamed


def is_keras_name(name: str) -> bool:
    """Returns whether a tensor's name is that of a Keras variable."""
    return name.endswith(":0")


def _variable(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def _torch_name(name: str) -> str:
    *layers, _ = name.split("/")
    # The last root: the file's groups and the class may repeat the name of the backbone.
    start = max((index for index, layer in enumerate(layers) if layer in _ROOTS), default=len(layers))
    variable = _variable(name)
    return ".".join([*layers[start:], _NAMES.get(variable, variable)])


def _reversed(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(tuple(reversed(tensor.shape)), lambda: np.ascontiguousarray(tensor.read().T))
