"""Describes a tensor in a file by its shape, and reads its numbers on demand as float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

DTYPES = ("float32", "float16", "bfloat16")  # float32 holds all of them exactly
_COUNTER = "int64"  # of batch norm


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Sizes of its dimensions.
        read: Returns the numbers as float32; raises ValueError if they are of another type or damaged.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def to_float32(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Returns the numbers of a tensor as float32; the counter of a batch norm, a whole number, as it is.

    Raises:
        ValueError: If they have a type that float32 does not hold exactly.
    """
    if array.dtype.name == _COUNTER and not array.shape:
        return array
    if array.dtype.name not in DTYPES:
        raise ValueError(f"{path}: {name} has type {array.dtype}; supported are {', '.join(DTYPES)}")
    return array.astype(np.float32, copy=False)
