"""Saves in a background thread: values are copied, and training goes on while the thread writes the copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class CopyValues(tf.train.experimental.ShardByTaskPolicy):
    """Lets TensorFlow write a checkpoint from copies of the values, and reports when they are taken.

    TensorFlow calls a sharding policy once per save, after it has read all values and before it writes any. This one
    puts them into one file, as without a policy, so that the file has the same bytes.
    """

    def __init__(self, taken: Callable[[], None]) -> None:
        """Creates the policy.

        Args:
            taken: Called when all values are copied and the variables may change again.
        """
        self._taken = taken

    @property
    def description(self) -> str:
        """Description for TensorFlow's log."""
        return "Copy the values, then as ShardByTaskPolicy."

    def __call__(self, shardable_tensors: Sequence[Any]) -> list[dict[str, dict[str, tf.Tensor]]]:
        """Returns copies of all values in host memory, as {key: {slice: value}} for each file."""
        shards = super().__call__(shardable_tensors)
        # Values of several hosts are read in a graph while they are written, so training has to wait.
        if not tf.executing_eagerly():
            return shards
        # A value that was read may share its memory with the variable. TensorFlow's kernels should copy such memory
        # before they write to it; not to rely on each of them costs a third of a second per gigabyte.
        with tf.device("CPU:0"):
            copies = [
                {key: {part: tf.raw_ops.DeepCopy(x=x) for part, x in parts.items()} for key, parts in shard.items()}
                for shard in shards
            ]
        self._taken()
        return copies


class Changes:
    """Counts begins and ends of changes, so that another thread can tell whether its copy is consistent.

    Attributes:
        count: Odd during a change.
    """

    def __init__(self) -> None:
        """Starts outside of any change."""
        self.count = 0

    @property
    def is_open(self) -> bool:
        """True during a change."""
        return self.count % 2 == 1

    def begin(self) -> None:
        """Marks the begin of a change; does nothing during one."""
        self.count += not self.is_open

    def end(self) -> None:
        """Marks the end of a change; does nothing outside of one."""
        self.count += self.is_open


class BackgroundWork:
    """Runs one piece of work at a time in a thread and raises its error from the next call.

    The thread does not keep the process alive: a caller that needs the work has to wait for it.
    """

    def __init__(self, name: str) -> None:
        """Starts no thread yet.

        Args:
            name: Name of the thread.
        """
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[Callable[[], None]], None]) -> None:
        """Starts work in the thread and returns when it can continue alone or has ended.

        Args:
            work: Called in the thread with a function to call when it can continue alone.

        Raises:
            BaseException: The error of the previous work, or of this work so far.
        """
        self.wait()
        is_free = threading.Event()

        def run() -> None:
            try:
                work(is_free.set)
            except BaseException as error:  # raised again in the calling thread
                self._error = error
            finally:
                is_free.set()

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()
        is_free.wait()
        self.raise_error()

    def wait(self) -> None:
        """Waits until no work is running.

        Raises:
            BaseException: The error of the work.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        """Raises the error of the work once; does not wait."""
        if self._error is not None:  # tested first: between an unconditional read and reset, an error could get lost
            error, self._error = self._error, None
            raise error
