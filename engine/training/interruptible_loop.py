"""Lets a function be called between the updates of a loop, so that signals are heard there."""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

# Target duration of the parts of a loop in the graph, between which the host notices signals.
_PART_SECS = 2.0


def call_between_updates(
    loop: Callable[..., None], between_updates: Callable[[], None] | None
) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
    """Returns a loop of Python's that calls a function after each update but the last.

    Args:
        loop: Orbit's loop: (iterator, number of updates, state, reduce_fn).
        between_updates: The function; None = there is none.
    """

    def interruptible(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
        # Orbit compares the number after each update. With a tensor, that waits for the GPU.
        last = int(num_steps)
        if between_updates is None:
            loop(iterator, last)
            return

        def count(num_done: int, output: None) -> int:
            # Not after the last update: what is due at the end of a loop must not be left out.
            if num_done + 1 < last:
                between_updates()
            return num_done + 1

        loop(iterator, last, state=0, reduce_fn=count)

    return interruptible


def split_into_parts(
    loop: Callable[..., None], between_updates: Callable[[], None], *, wait: Callable[[], object]
) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
    """Returns a loop in the graph as short parts of the same updates, with a function called between them.

    Args:
        loop: Orbit's loop in the graph: (iterator, number of updates).
        between_updates: The function.
        wait: Waits for the accelerator, which may only have queued its work.
    """
    # Of one update; None before one was timed without compilation.
    slowest_secs: float | None = None
    is_compiled = False

    def interruptible(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
        nonlocal slowest_secs, is_compiled
        left = int(num_steps)
        while left:
            part = 1 if slowest_secs is None else int(max(_PART_SECS / slowest_secs, 1))
            part = min(part, left)
            start = time.monotonic()
            loop(iterator, tf.constant(part, num_steps.dtype))
            wait()
            secs = (time.monotonic() - start) / part
            if is_compiled:
                # The decay forgets an update that was slow once, perhaps for a long row.
                slowest_secs = max(secs, 1e-6, 0.8 * (slowest_secs or 0.0))
            is_compiled = True
            left -= part
            if left:
                between_updates()

    return interruptible
