"""Keeps the notice of XLA's compiler off the terminal."""

from __future__ import annotations

import functools

import tensorflow as tf

from common.streams import silence_stderr


@functools.cache
def drop_compilers_first_notice() -> None:
    """Compiles a trivial function unheard: XLA's first compilation in a process prints two lines about itself.

    No setting turns them off. It takes 0.05 s. Call it before anything is compiled or traced to be, and after
    TensorFlow's devices have been configured.
    """
    with silence_stderr(), tf.init_scope(), tf.device("CPU:0"):
        tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)(tf.constant(0.0))
