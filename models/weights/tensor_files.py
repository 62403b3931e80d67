"""Reads the tensors of a Hugging Face folder, from safetensors, PyTorch files or HDF5, and writes safetensors."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common import json_files
from models.weights import keras_files, torch_files
from models.weights.stored_tensor import DTYPES, StoredTensor, to_float32
from models.weights.unpickling import TorchFileError, TorchTensor

_SAFETENSORS = "model.safetensors"
_MAX_NAME = 255  # bytes of a file name; the system's error for a longer one repeats it in full

_Open = Callable[[Path, contextlib.ExitStack], dict[str, StoredTensor]]


def open_tensors(folder: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Opens the weights of a Hugging Face folder: safetensors before a pickle before Keras, whole before in shards.

    Args:
        folder: Hugging Face folder.
        stack: Closes the opened files.

    Returns:
        Name in the file, or for Keras that of the PyTorch class -> tensor.

    Raises:
        FileNotFoundError: If there are no weights, or a shard is missing.
        ValueError: If a file is damaged, or holds anything but tensors.
    """
    for name, open_file in _FORMATS.items():
        if (folder / name).is_file():
            return open_file(folder / name, stack)
        if (folder / f"{name}.index.json").is_file():
            return _open_shards(folder / f"{name}.index.json", open_file, stack)
    raise FileNotFoundError(f"{folder}: no weights; looked for {', '.join(_FORMATS)} and their .index.json")


def open_tensor_file(path: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Opens one file of tensors, safetensors or a pickle by its suffix; raises as `open_tensors`."""
    return open_safetensors(path, stack) if path.suffix == ".safetensors" else _open_pickle(path, stack)


def save_tensors(
    tensors: Mapping[str, np.ndarray],
    folder: Path,
    *,
    name: str = _SAFETENSORS,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the weights of a Hugging Face folder; not atomically.

    Args:
        tensors: Name -> tensor.
        folder: Folder to write to.
        name: Name of the file.
        metadata: Texts for the header of the file.

    Raises:
        OSError: If the file cannot be written.
    """
    try:
        save_file(dict(tensors), folder / name, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise OSError(f"{folder}: cannot be written ({error}); make room, or choose another folder") from error


def open_stored(path: Path, tensors: Mapping[str, TorchTensor]) -> dict[str, StoredTensor]:
    """Returns the tensors of a PyTorch file as they are read here: float32, errors in one line that names the file."""

    def read(name: str) -> np.ndarray:
        try:
            return to_float32(path, name, tensors[name].read())
        except TorchFileError as error:
            raise ValueError(f"{path}: {error}; fetch it again") from error

    return {name: StoredTensor(tensor.shape, functools.partial(read, name)) for name, tensor in tensors.items()}


def open_safetensors(
    path: Path, stack: contextlib.ExitStack, *, metadata: dict[str, str] | None = None
) -> dict[str, StoredTensor]:
    """Opens one safetensors file, and adds the texts in its header to `metadata`; raises as `open_tensors`."""
    try:
        file = stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error

    if metadata is not None:
        metadata.update(file.metadata() or {})

    def read(name: str) -> np.ndarray:
        try:
            tensor = file.get_tensor(name)
        except (AttributeError, TypeError) as error:  # a type that NumPy lacks, such as float8
            kind = file.get_slice(name).get_dtype()
            raise ValueError(f"{path}: {name} has type {kind}; supported are {', '.join(DTYPES)}") from error
        return to_float32(path, name, tensor)

    tensors = {
        name: StoredTensor(tuple(file.get_slice(name).get_shape()), functools.partial(read, name))
        for name in file.keys()  # noqa: SIM118, the file is not a mapping
    }
    if any(map(keras_files.is_keras_name, tensors)):  # written by a TensorFlow class
        return keras_files.rename(tensors, path)
    return tensors


def _open_shards(index: Path, open_file: _Open, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    try:
        shard_of = json_files.field(json_files.read_object(index), "weight_map", dict, os.fspath(index))
        for name in shard_of:
            json_files.field(shard_of, name, str, f"{index}: weight_map")
    except json_files.MalformedFileError as error:
        raise ValueError(f"{error}; wanted an index with a weight_map; fetch it again") from error
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(shard_of.values())):
        found = _open_shard(index, shard, open_file, stack)
        listed = {name for name, place in shard_of.items() if place == shard}
        if any(map(keras_files.is_keras_name, listed)):
            listed = set(keras_files.rename(dict.fromkeys(listed, _NOTHING), index))
        if misplaced := found.keys() ^ listed:
            raise ValueError(
                f"{index}: tensor {min(misplaced)} is not in the shard listed for it; fetch the folder again"
            )
        tensors.update(found)
    return tensors


def _open_shard(index: Path, shard: str, open_file: _Open, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    path = index.parent / shard
    if Path(shard).name != shard or len(shard.encode()) > _MAX_NAME or not shard.isprintable():
        raise ValueError(f"{index}: {shard[:60]!r} is not a file name in the folder; fetch the folder again")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but {index.name} lists it; fetch it")
    return open_file(path, stack)


def _open_pickle(path: Path, _: contextlib.ExitStack) -> dict[str, StoredTensor]:
    try:
        return open_stored(path, torch_files.tensors_of(torch_files.load(path)))
    except TorchFileError as error:
        raise ValueError(f"{path}: {error}; fetch {_SAFETENSORS} instead") from error


_NOTHING = StoredTensor((), lambda: np.zeros(()))
# File of a whole model -> how it is opened, in the order of preference.
_FORMATS: dict[str, _Open] = {
    _SAFETENSORS: open_safetensors,
    "pytorch_model.bin": _open_pickle,
    "tf_model.h5": keras_files.open_h5,
}
