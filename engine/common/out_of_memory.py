"""Turns the many errors for used-up memory, on a GPU or in the machine, into one line that says what to lower."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator

import tensorflow as tf

# The words of TensorFlow's allocators, of XLA, of CUDA's libraries and of NumPy. The type is no sign: a full disk is a
# ResourceExhaustedError too, and CUDA's libraries cause an InternalError.
_WORDS = re.compile(
    r"OOM when allocating|out of memory|OUT_OF_MEMORY|STATUS_ALLOC_FAILED|failed to allocate|unable to allocate|"
    r"Dst tensor is not initialized|bad_alloc",
    flags=re.IGNORECASE,
)
_SIZE = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]i?B)|shape\s?\[([\d,]+)\]", flags=re.IGNORECASE)
_EVALUATION = "/engine/evaluation/"


class OutOfMemoryError(ValueError):
    """Memory is used up; the message is one line for the user."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that the memory of a GPU or of the machine is used up."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, tf.errors.OpError | RuntimeError) and _WORDS.search(str(error)) is not None


@contextlib.contextmanager
def explained_out_of_memory(advise: Callable[[bool], str]) -> Iterator[None]:
    """Turns errors for memory that is used up into one line.

    Args:
        advise: (whether it happened in an evaluation) -> what to do.

    Raises:
        OutOfMemoryError: Memory is used up.
    """
    try:
        yield
    except (tf.errors.OpError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        evaluates = any(_EVALUATION in frame.filename.replace("\\", "/") for frame in frames)
        raise OutOfMemoryError(f"{describe(error)}; {advise(evaluates)}") from error


def describe(error: BaseException) -> str:
    """Returns which memory is used up, and what did not fit if the error says so."""
    text = str(error)
    gpu = re.search(r"GPU[:_](\d+)", text)
    is_gpu = gpu or re.search(r"cuda|cublas|cudnn|Dst tensor", text, flags=re.IGNORECASE)
    place = f"GPU {gpu.group(1)}" if gpu else "the GPU" if is_gpu else _default_place()
    size = _SIZE.search(text)
    what = ""
    if size:
        what = f" (a tensor of shape [{size[3]}] did not fit)" if size[3] else f" ({size[1]} {size[2]} did not fit)"
    return f"out of memory on {place}{what}"


def _default_place() -> str:
    """Returns where an error happened that does not say it."""
    return "the GPU" if tf.config.list_logical_devices("GPU") else "this machine"
