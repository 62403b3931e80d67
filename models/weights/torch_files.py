"""Reads PyTorch files without PyTorch and without running the program that their pickle is."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.weights.unpickling import Storage, TensorUnpickler, TorchFileError, TorchTensor

_MAX_PICKLE_BYTES = 64 * 2**20  # of names and shapes; the numbers lie in files of their own
# Beginning of a file from before PyTorch 1.6, and the only version of that format.
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file has the format that `torch.save` writes since PyTorch 1.6."""
    return zipfile.is_zipfile(path)


def load(path: str | os.PathLike[str], *, inert: bool = False) -> Any:
    """Reads what `torch.save` wrote: since PyTorch 1.6 a zip archive, before that pickles followed by the numbers.

    A pickle is a program. This runs it on a machine that knows containers and `TorchTensor` alone: any other function
    that it names is refused, so nothing of the file's own choice is ever called.

    Args:
        path: A local file.
        inert: Whether the configs and dictionaries that fairseq keeps beside the weights become `Inert` data; they are
            refused otherwise.

    Returns:
        The object, most often a dict of names, with a `TorchTensor` for every tensor. They read from the file later.

    Raises:
        FileNotFoundError: There is no such file.
        TorchFileError: The file is damaged, or its pickle names anything but tensors and containers.
    """
    try:
        if not is_zip(path):
            with open(path, "rb") as file:
                return _load_old(file, Path(path), inert=inert)
        with zipfile.ZipFile(path) as archive:
            return _load_archive(archive, Path(path), inert=inert)
    except (TorchFileError, FileNotFoundError):
        raise
    except (OSError, RecursionError, MemoryError) as error:
        raise TorchFileError(f"cannot be read ({type(error).__name__})") from error
    except Exception as error:  # a damaged pickle raises anything: its opcodes are bytes
        raise TorchFileError(f"damaged ({type(error).__name__})") from error


def _load_archive(archive: zipfile.ZipFile, path: Path, *, inert: bool) -> Any:
    names = {info.filename: info for info in archive.infolist()}
    root = next((name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")), None)
    if root is None:
        raise TorchFileError("no data.pkl inside")
    if names[f"{root}data.pkl"].file_size > _MAX_PICKLE_BYTES:
        raise TorchFileError("its pickle is too large to hold names and shapes alone")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise TorchFileError("its numbers are big-endian")

    def storage(dtype: np.dtype, key: str, num_elements: int) -> Storage:
        info = names.get(f"{root}data/{key}")
        if info is None:
            raise TorchFileError("a tensor's numbers are missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != num_elements * dtype.itemsize:
            raise TorchFileError(f"{key} has {info.file_size} bytes for {num_elements} numbers")
        return Storage(dtype, num_elements, functools.partial(_read_member, path, info.filename, dtype))

    with archive.open(f"{root}data.pkl") as file:
        return TensorUnpickler(file, storage, inert=inert).load()


def _read_member(path: Path, name: str, dtype: np.dtype) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(name), dtype)
    except Exception as error:  # damaged archives raise anything
        raise TorchFileError(f"damaged in {name}") from error


def _load_old(file: BinaryIO, path: Path, *, inert: bool) -> Any:
    """Reads the format of before PyTorch 1.6.

    Pickles of a number, a version, the machine, the object and the keys of the numbers, then for each key its length
    and the numbers.
    """
    if _read_plain(file, int) != _OLD_MAGIC or _read_plain(file, int) != _OLD_VERSION:
        raise TorchFileError("not a PyTorch file")
    if _read_plain(file, dict).get("little_endian") is not True:
        raise TorchFileError("its numbers are big-endian")
    storages: dict[str, Storage] = {}
    places: dict[str, int] = {}  # known once the pickle has ended

    def storage(dtype: np.dtype, key: str, num_elements: int) -> Storage:
        read = functools.partial(_read_range, path, places, key, dtype, num_elements)
        known = storages.setdefault(key, Storage(dtype, num_elements, read))
        if (known.dtype, known.num_elements) != (dtype, num_elements):
            raise TorchFileError(f"{key} has two sizes")
        return known

    content = TensorUnpickler(file, storage, inert=inert).load()
    for key in _read_plain(file, list):
        known = storages.get(str(key))
        length = int.from_bytes(file.read(8), "little")
        if known is None or length != known.num_elements:
            raise TorchFileError(f"{key} has {length} numbers instead of {known.num_elements if known else 'none'}")
        places[str(key)] = file.tell()
        file.seek(length * known.dtype.itemsize, os.SEEK_CUR)
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise TorchFileError("it ends before its numbers do")
    return content


def _read_plain(file: BinaryIO, kind: type) -> Any:
    """Returns the scalar, list or dict of scalars that the next pickle holds."""
    found = TensorUnpickler(file, _no_storage).load()
    if not isinstance(found, kind):
        raise TorchFileError("not a PyTorch file")
    return found


def _no_storage(dtype: np.dtype, key: str, num_elements: int) -> Storage:
    raise TorchFileError("not a PyTorch file")


def _read_range(path: Path, places: Mapping[str, int], key: str, dtype: np.dtype, length: int) -> np.ndarray:
    if key not in places:
        raise TorchFileError("a tensor's numbers are missing")
    with open(path, "rb") as file:
        file.seek(places[key])
        content = file.read(length * dtype.itemsize)
    if len(content) != length * dtype.itemsize:
        raise TorchFileError("it ends before its numbers do")
    return np.frombuffer(content, dtype)


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
