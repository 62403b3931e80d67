"""Reads the tensors of a PyTorch file without PyTorch and without running the program that its pickle is."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_MAX_PICKLE_BYTES = 64 * 2**20  # of names and shapes; the numbers lie in files of their own
_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A tensor in a PyTorch file: its shape is known, its numbers are read when they are needed.

    Attributes:
        shape: Sizes of its dimensions.
        dtype: Type of its numbers.
        read: Returns the numbers as an array of `shape` and `dtype`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class TorchFileError(ValueError):
    """A PyTorch file that is damaged, or that holds more than tensors in containers; the message is the reason."""


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file has the format that `torch.save` writes since PyTorch 1.6."""
    return zipfile.is_zipfile(path)


def load(path: str | os.PathLike[str]) -> Any:
    """Reads what `torch.save` wrote since PyTorch 1.6: a zip archive of one pickle and one file for each storage.

    The pickle is a program. This runs it on a machine that knows containers and `TorchTensor` alone: any other function
    that it names is refused, so nothing of the file's own choice is ever called.

    Args:
        path: A local file.

    Returns:
        The object, most often a dict of names, with a `TorchTensor` for every tensor. They read from the file later.

    Raises:
        FileNotFoundError: There is no such file.
        TorchFileError: The file is damaged, or its pickle names anything but tensors and containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _load_archive(archive, Path(path))
    except (TorchFileError, FileNotFoundError):
        raise
    except (OSError, RecursionError, MemoryError) as error:
        raise TorchFileError(f"cannot be read ({type(error).__name__})") from error
    except Exception as error:  # a damaged pickle raises anything: its opcodes are bytes
        raise TorchFileError(f"damaged ({type(error).__name__})") from error


def _load_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    names = {info.filename: info for info in archive.infolist()}
    root = next((name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")), None)
    if root is None:
        raise TorchFileError("no data.pkl inside")
    if names[f"{root}data.pkl"].file_size > _MAX_PICKLE_BYTES:
        raise TorchFileError("its pickle is too large to hold names and shapes alone")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise TorchFileError("its numbers are big-endian")
    with archive.open(f"{root}data.pkl") as file:
        return _TensorUnpickler(file, path, root, names).load()


def tensors_of(content: Any) -> dict[str, TorchTensor]:
    """Returns the tensors of a state dict by name.

    Raises:
        TorchFileError: `content` is not a mapping of names to tensors.
    """
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, TorchTensor) for name, value in content.items()
    ):
        raise TorchFileError("not a mapping of names to tensors")
    return dict(content)


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    file: str
    num_elements: int


class _StorageType:
    """Stands for a class such as torch.FloatStorage, which a pickle names and never calls."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _TensorUnpickler(pickle.Unpickler):
    """Builds containers and `TorchTensor`s, and refuses every other name."""

    def __init__(self, file: Any, path: Path, root: str, names: Mapping[str, zipfile.ZipInfo]):
        super().__init__(file)
        self._path = path
        self._root = root
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise TorchFileError(f"its pickle names {module}.{name}, which is no tensor; none of it was run")

    def persistent_load(self, key: Any) -> _Storage:
        kind, storage_type, file, _, num_elements = key
        name = f"{self._root}data/{file}"
        if kind != "storage" or not isinstance(storage_type, _StorageType) or name not in self._names:
            raise TorchFileError("a tensor's numbers are missing")
        info = self._names[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != num_elements * storage_type.dtype.itemsize:
            raise TorchFileError(f"{file} has {info.file_size} bytes for {num_elements} numbers")
        return _Storage(storage_type.dtype, name, num_elements)

    def _tensor(self, storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> TorchTensor:
        shape, strides = tuple(size), tuple(stride)
        whole = (offset, *shape, *strides)
        if len(shape) != len(strides) or any(not isinstance(number, int) or number < 0 for number in whole):
            raise TorchFileError("a tensor has no valid shape")
        last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
        if math.prod(shape) > storage.num_elements or (math.prod(shape) and last >= storage.num_elements):
            raise TorchFileError("a tensor is larger than its numbers")
        read = functools.partial(_read, self._path, storage, offset, shape, strides)
        return TorchTensor(shape, storage.dtype, read)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _read(path: Path, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            numbers = np.frombuffer(archive.read(storage.file), storage.dtype)
    except Exception as error:  # damaged archives raise anything
        raise TorchFileError(f"damaged in {storage.file}") from error
    steps = tuple(step * storage.dtype.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False).copy()
