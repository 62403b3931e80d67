"""Lets XLA compile functions as a whole, and tells code that is traced for it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from common.xla_notice import drop_compilers_first_notice

_tracing = threading.local()


def is_compiled_whole() -> bool:
    """Returns whether what is traced now will be compiled as a part of a larger program.

    XLA then fuses what is next to each other, and what is best for kernels that run one by one may be worse.
    """
    return getattr(_tracing, "is_whole", False)


def compile_whole(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns `function` compiled by XLA as a whole; `options` are those of tf.function.

    Call it after TensorFlow's devices have been configured.
    """
    drop_compilers_first_notice()

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        before = is_compiled_whole()
        _tracing.is_whole = True
        try:
            return function(*args, **kwargs)
        finally:
            _tracing.is_whole = before

    compiled = tf.function(traced, jit_compile=True, autograph=False, **options)
    # Each shape of batches is traced on purpose; TensorFlow would warn of the fifth.
    compiled._omit_frequent_tracing_warning = True
    return compiled
