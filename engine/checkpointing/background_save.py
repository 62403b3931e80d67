"""A save that training does not wait for: the values are copied, and a thread of its own writes the copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class CopyValues(tf.train.experimental.ShardByTaskPolicy):
    """Lets TensorFlow write a checkpoint from copies of its values, and says when they are taken.

    TensorFlow asks such a policy once a save, when it has read everything and written nothing, how to split the values
    into files: into one, as without a policy, so that the file is the same to the byte.
    """

    def __init__(self, taken: Callable[[], None]) -> None:
        """Keeps its argument.

        Args:
            taken: Called when the variables may change again.
        """
        self._taken = taken

    @property
    def description(self) -> str:
        """For TensorFlow's log."""
        return "Copy the values, then as ShardByTaskPolicy."

    def __call__(self, shardable_tensors: Sequence[Any]) -> list[dict[str, dict[str, tf.Tensor]]]:
        """Returns the values of all variables, in host memory, as {key: {slice: value}} for each file."""
        shards = super().__call__(shardable_tensors)
        # Values of several hosts are read in a graph, while they are written: then training has to wait.
        if not tf.executing_eagerly():
            return shards
        # What was read may share its memory with the variable. TensorFlow copies that memory before it writes into it
        # while somebody holds it, but not to depend on each kernel's doing so costs a third of a second a gigabyte.
        with tf.device("CPU:0"):
            copies = [
                {key: {part: tf.raw_ops.DeepCopy(x=x) for part, x in parts.items()} for key, parts in shard.items()}
                for shard in shards
            ]
        self._taken()
        return copies


class Changes:
    """Counts the begins and ends of changes, so that another thread can tell whether it copied a whole.

    Attributes:
        count: Odd while a change is under way.
    """

    def __init__(self) -> None:
        """Starts with no change under way."""
        self.count = 0

    @property
    def is_open(self) -> bool:
        """Whether a change is under way."""
        return self.count % 2 == 1

    def begin(self) -> None:
        """Says that a change begins; nothing where one is under way."""
        self.count += not self.is_open

    def end(self) -> None:
        """Says that the change is over; nothing where none is under way."""
        self.count += self.is_open


class BackgroundWork:
    """At most one piece of work at a time in a thread; what goes wrong in it is raised by whoever asks next.

    The thread does not keep the process alive: whoever needs the work waits for it.
    """

    def __init__(self, name: str) -> None:
        """Keeps its argument; there is no thread yet.

        Args:
            name: Of the thread.
        """
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[Callable[[], None]], None]) -> None:
        """Begins work and returns when it says that it may go on alone, or is over.

        Args:
            work: Called in the thread with the function by which it says so.

        Raises:
            BaseException: What work before it, or this work so far, raised.
        """
        self.wait()
        is_free = threading.Event()

        def run() -> None:
            try:
                work(is_free.set)
            except BaseException as error:  # whatever it is, it belongs to the thread that asks
                self._error = error
            finally:
                is_free.set()

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()
        is_free.wait()
        self.raise_error()

    def wait(self) -> None:
        """Waits until nothing is under way.

        Raises:
            BaseException: What the work raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        """Raises what the work raised, once; does not wait."""
        if self._error is not None:  # looked at first: taken and forgotten in one go, an error could slip in between
            error, self._error = self._error, None
            raise error
