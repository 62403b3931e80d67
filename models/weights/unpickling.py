"""Runs a pickle on a machine that knows tensors, containers and inert stand-ins alone: nothing it names is called."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

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
_MAX_DEPTH, _MAX_VALUES = 50, 10**6  # of a config
# Packages whose objects training programs keep beside the weights: configs, dictionaries, sizes.
_INERT_PACKAGES = ("fairseq", "fairseq2", "omegaconf", "examples", "numpy", "torch", "typing")
_INERT_NAMES = {
    "argparse": ("Namespace",),
    "collections": ("defaultdict", "Counter", "deque"),
    "enum": ("Enum", "IntEnum"),
    "pathlib": ("Path", "PosixPath", "PurePosixPath"),
    "_codecs": ("encode",),
}
# Types that a config names; what runs code (eval, getattr, open) is none of them.
_INERT_TYPES = (
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object", "range",
    "set", "slice", "str", "tuple", "type", "unicode", "xrange",
)  # fmt: skip
_INERT_NAMES |= dict.fromkeys(("builtins", "__builtin__"), _INERT_TYPES)


class TorchFileError(ValueError):
    """A PyTorch file that is damaged, or that holds more than it may; the message is the reason."""


class _Sealed:
    """Refuses what a pickle may otherwise do to any object that it has made, even a frozen one: set its fields."""

    def __setstate__(self, state: Any) -> None:
        raise TorchFileError("its pickle overwrites what it has made")


class _OrderedDict(OrderedDict[Any, Any]):
    """A dict whose methods a pickle cannot overwrite; `_metadata` of a state dict, which it sets, is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class TorchTensor(_Sealed):
    """A tensor in a PyTorch file: its shape is known, its numbers are read when they are needed.

    Attributes:
        shape: Sizes of its dimensions.
        dtype: Type of its numbers.
        read: Returns the numbers as an array of `shape` and `dtype`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class Inert:
    """Stands for an object of a class that is never imported: what it was made from, as data.

    Attributes:
        kind: Module and name of the class or function.
        arguments: What it was called with.
        state: What the pickle set on it.
        items: Entries that were added to it as to a dict.
    """

    kind = ""

    arguments: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *arguments: Any) -> Inert:
        """Keeps what the pickle gives."""
        made = super().__new__(cls)  # not __init__, which a pickle need not call
        made.arguments, made.state, made.items = arguments, None, {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Keeps an element as the pickle adds it to a list."""
        self.items[len(self.items)] = value


@dataclasses.dataclass(frozen=True)
class Storage(_Sealed):
    """Numbers of one or more tensors.

    Attributes:
        dtype: Type of the numbers.
        num_elements: How many there are.
        read: Returns all of them, [num_elements]; raises TorchFileError.
    """

    dtype: np.dtype
    num_elements: int
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class StorageType(_Sealed):
    """Stands for a class such as torch.FloatStorage, which a pickle names and never calls."""

    dtype: np.dtype


class TensorUnpickler(pickle.Unpickler):
    """Builds containers and `TorchTensor`s, and refuses every other name.

    Args:
        file: File positioned at the start of the pickle.
        storage: Returns the numbers that a pickle refers to, from their type, their key and how many there are.
        inert: Whether configs and dictionaries of training programs are let through as `Inert`.
    """

    def __init__(self, file: Any, storage: Callable[[np.dtype, str, int], Storage], *, inert: bool = False):
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._inert = inert

    def find_class(self, module: str, name: str) -> Any:
        """Returns our stand-in for a name, and refuses those without one."""
        if module == "torch" and name in _STORAGES:
            return StorageType(np.dtype(_STORAGES[name]))
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if (module, name) == ("collections", "OrderedDict"):
            return _OrderedDict
        if self._inert and _may_be_inert(module, name):
            return type("Inert", (Inert,), {"kind": f"{module}.{name}"})
        what = "no tensor" if not self._inert else "neither a tensor nor a known config"
        raise TorchFileError(f"its pickle names {module}.{name}, which is {what}; none of it was run")

    def persistent_load(self, key: Any) -> Storage:
        """Returns the numbers that a tensor refers to."""
        kind, storage_type, name, _, num_elements, *view = key
        if kind != "storage" or not isinstance(storage_type, StorageType) or any(item is not None for item in view):
            raise TorchFileError("a tensor's numbers are missing")
        return self._storage(storage_type.dtype, str(name), num_elements)


def plain(value: Any) -> Any:
    """Returns a config as dicts, lists and scalars: a Namespace, a DictConfig and an enum become their content.

    Raises:
        TorchFileError: It is nested without end.
    """
    return _plain(value, 0, itertools.count())


def _plain(value: Any, depth: int, counter: Iterator[int]) -> Any:
    if depth > _MAX_DEPTH:
        raise TorchFileError("its config is nested too deeply")
    # A list that holds one list twice, which holds another twice, has few bytes and more values than memory holds.
    if next(counter) > _MAX_VALUES:
        raise TorchFileError(f"its config has more than {_MAX_VALUES} values")
    depth += 1
    if isinstance(value, Inert):
        return _plain(_content_of(value), depth, counter)
    if isinstance(value, dict):
        return {str(key): _plain(item, depth, counter) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth, counter) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else None


def _content_of(value: Inert) -> Any:
    """Returns what a Namespace, a DictConfig or an enum holds; None if that is not known."""
    state = value.state if isinstance(value.state, dict) else {}
    if "_content" in state or "_val" in state:  # omegaconf
        return state.get("_content", state.get("_val"))
    if state or value.items:
        return state or value.items
    return value.arguments[0] if len(value.arguments) == 1 else None


def _may_be_inert(module: str, name: str) -> bool:
    return module.partition(".")[0] in _INERT_PACKAGES or name in _INERT_NAMES.get(module, ())


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> TorchTensor:
    shape, strides = tuple(size), tuple(stride)
    whole = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise TorchFileError("a tensor has no valid shape")
    if any(not isinstance(number, int) or number < 0 for number in whole):
        raise TorchFileError("a tensor has no valid shape")
    last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.num_elements or (math.prod(shape) and last >= storage.num_elements):
        raise TorchFileError("a tensor is larger than its numbers")
    return TorchTensor(shape, storage.dtype, functools.partial(_read, storage, offset, shape, strides))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _read(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    numbers = storage.read()
    steps = tuple(step * storage.dtype.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False).copy()
