"""Reads the tensors of a Hugging Face folder, from safetensors or a PyTorch file, and writes safetensors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common import json_files
from models.weights import torch_files

_SAFETENSORS, _SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"
_MAX_NAME = 255  # bytes of a file name; the system's error for a longer one repeats it in full
_DTYPES = ("float32", "float16", "bfloat16")  # float32 holds all of them exactly
_COUNTER = "int64"  # of batch norm


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file whose shape is known and whose numbers are read on demand."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def open_tensors(folder: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Opens the weights of a Hugging Face folder, preferring safetensors, whole or in shards, to a pickle.

    Args:
        folder: Hugging Face folder.
        stack: Closes the opened files.

    Returns:
        Name in the file -> tensor.

    Raises:
        FileNotFoundError: If there are no weights, or a shard is missing.
        ValueError: If a file is damaged, or holds anything but tensors.
    """
    if (folder / _SAFETENSORS).is_file():
        return _open_safetensors(folder / _SAFETENSORS, stack)
    if (folder / _SAFETENSORS_INDEX).is_file():
        return _open_shards(folder / _SAFETENSORS_INDEX, stack)
    if (folder / _PICKLE).is_file():
        return _load_pickle(folder / _PICKLE)
    raise FileNotFoundError(f"{folder}: no weights; looked for {_SAFETENSORS}, {_SAFETENSORS_INDEX} and {_PICKLE}")


def open_tensor_file(path: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Opens one file of tensors, safetensors or a pickle by its suffix; raises as `open_tensors`."""
    return _open_safetensors(path, stack) if path.suffix == ".safetensors" else _load_pickle(path)


def save_tensors(tensors: Mapping[str, np.ndarray], folder: Path, *, name: str = _SAFETENSORS) -> None:
    """Writes a file of weights, `name`, to a Hugging Face folder; not atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    try:
        save_file(dict(tensors), folder / name, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{folder}: cannot be written ({error}); make room, or choose another folder") from error


def _open_safetensors(path: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    try:
        file = stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error

    def read(name: str) -> np.ndarray:
        try:
            tensor = file.get_tensor(name)
        except (AttributeError, TypeError) as error:  # a type that NumPy lacks, such as float8
            kind = file.get_slice(name).get_dtype()
            raise ValueError(f"{path}: {name} has type {kind}; supported are {', '.join(_DTYPES)}") from error
        return _to_float32(path, name, tensor)

    return {
        name: StoredTensor(tuple(file.get_slice(name).get_shape()), functools.partial(read, name))
        for name in file.keys()  # noqa: SIM118, the file is not a mapping
    }


def _open_shards(index: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    try:
        shard_of = json_files.field(json_files.read_object(index), "weight_map", dict, os.fspath(index))
        for name in shard_of:
            json_files.field(shard_of, name, str, f"{index}: weight_map")
    except json_files.MalformedFileError as error:
        raise ValueError(f"{error}; wanted an index with a weight_map; fetch it again") from error
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(shard_of.values())):
        found = _open_shard(index, shard, stack)
        listed = {name for name, place in shard_of.items() if place == shard}
        if misplaced := found.keys() ^ listed:
            raise ValueError(
                f"{index}: tensor {min(misplaced)} is not in the shard listed for it; fetch the folder again"
            )
        tensors.update(found)
    return tensors


def _open_shard(index: Path, shard: str, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    path = index.parent / shard
    if Path(shard).name != shard or len(shard.encode()) > _MAX_NAME or not shard.isprintable():
        raise ValueError(f"{index}: {shard[:60]!r} is not a file name in the folder; fetch the folder again")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but {index.name} lists it; fetch it")
    return _open_safetensors(path, stack)


def _load_pickle(path: Path) -> dict[str, StoredTensor]:
    if torch_files.is_zip(path):
        try:
            found = torch_files.tensors_of(torch_files.load(path))
        except torch_files.TorchFileError as error:
            raise ValueError(f"{path}: {error}; fetch {_SAFETENSORS} instead") from error

        def read_stored(name: str) -> np.ndarray:
            try:
                return _to_float32(path, name, found[name].read())
            except torch_files.TorchFileError as error:
                raise ValueError(f"{path}: {error}; fetch {_SAFETENSORS} instead") from error

        return {
            name: StoredTensor(tensor.shape, functools.partial(read_stored, name)) for name, tensor in found.items()
        }
    return _load_old_pickle(path)


def _load_old_pickle(path: Path) -> dict[str, StoredTensor]:
    """Loads the file format from before PyTorch 1.6, which is not a zip archive, with torch."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path}: reading it needs torch, which is not installed; pip install torch, or fetch {_SAFETENSORS}"
        ) from error
    content = _unpickle(path)
    pairs = content.items() if isinstance(content, Mapping) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(item, torch.Tensor) and not item.is_nested for name, item in pairs):
        raise ValueError(f"{path}: not a mapping of names to tensors; fetch {_SAFETENSORS} instead")

    def read(name: str) -> np.ndarray:
        tensor = content[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in (*_DTYPES, _COUNTER) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = f"{tensor.layout}, {tensor.device.type}".replace("torch.", "")
            raise ValueError(f"{path}: {name} is {dtype} ({kind}); supported are whole tensors of {', '.join(_DTYPES)}")
        # Through float32, because NumPy has no bfloat16.
        return _to_float32(path, name, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())

    return {name: StoredTensor(tuple(value.shape), functools.partial(read, name)) for name, value in content.items()}


def _unpickle(path: Path) -> Any:
    import torch

    remedy = f"fetch {_SAFETENSORS} instead"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the format
            # A pickle is a program; weights_only does not run it.
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message recommends running the pickle.
        raise ValueError(f"{path}: damaged, or a pickle of more than tensors; none of it was run; {remedy}") from error
    except Exception as error:  # torch does not document the errors of damaged files
        reason = str(error).split(".")[0].strip() or type(error).__name__
        raise ValueError(f"{path}: damaged ({reason}); {remedy}") from error


def _to_float32(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name == _COUNTER and not array.shape:
        return array
    if array.dtype.name not in _DTYPES:
        raise ValueError(f"{path}: {name} has type {array.dtype}; supported are {', '.join(_DTYPES)}")
    return array.astype(np.float32, copy=False)
