"""Runs what many threads submit on one thread, in batches; the queue is bounded, and no item is lost or done twice."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from absl import logging

from engine.common.out_of_memory import OutOfMemoryError

# Weight of the newest batch in the running average of the time that an item takes.
_NEWEST_WEIGHT = 0.1


class QueueFullError(Exception):
    """Raised where as many items wait as may, or where the queue is closed."""


class WorkQueue:
    """Collects items and runs them in batches: what comes while one batch runs is the next one.

    Nobody waits for a batch to fill up: an idle queue does a single item at once, a busy one large batches.
    """

    def __init__(self, *, do_batch: Callable[[list[Any]], Sequence[Any]], batch_size: int, max_pending: int) -> None:
        """Starts the thread that runs the batches.

        Args:
            do_batch: Items -> their results, in order. Called by one thread only. If it raises, each item is tried
                again by itself, so that one bad item costs the others nothing.
            batch_size: Most items of a batch.
            max_pending: Most items that are waiting or being done.
        """
        self._do_batch = do_batch
        self._batch_size = batch_size
        self.max_pending = max_pending
        self._waiting: deque[tuple[Any, Future]] = deque()
        self._num_running = 0
        self._secs_per_item = 0.0
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="WorkQueue", daemon=True)
        self._thread.start()

    @property
    def num_pending(self) -> int:
        """Returns the number of items that are waiting or running."""
        with self._changed:
            return sum(not future.cancelled() for _, future in self._waiting) + self._num_running

    @property
    def secs_until_free(self) -> float:
        """Returns an estimate of the seconds until everything pending is done."""
        return self.num_pending * self._secs_per_item

    def submit(self, item: Any) -> Future:
        """Queues an item; its result, or what it raised, arrives in the future.

        A future that is cancelled before its batch begins is not done.

        Raises:
            QueueFullError: There is no place for it.
        """
        with self._changed:
            # Those that were given up since make room.
            self._waiting = deque(entry for entry in self._waiting if not entry[1].cancelled())
            if self._is_closed or len(self._waiting) + self._num_running >= self.max_pending:
                raise QueueFullError
            future: Future = Future()
            self._waiting.append((item, future))
            self._changed.notify()
            return future

    def close(self, *, timeout_secs: float) -> bool:
        """Takes nothing more, finishes what it has, and returns whether it could in time."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_secs)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch: list[tuple[Any, Future]] = []
                while self._waiting and len(batch) < self._batch_size:
                    item, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((item, future))
                self._num_running = len(batch)
            if batch:
                self._finish(batch)
            del batch  # an idle queue keeps nobody's request
            with self._changed:
                self._num_running = 0

    def _finish(self, batch: list[tuple[Any, Future]]) -> None:
        start_secs = time.monotonic()
        try:
            results = self._do_batch([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                if isinstance(error, OutOfMemoryError):
                    logging.error("a request failed: %s", error)
                else:
                    logging.exception("a request failed")
                if not batch[0][1].done():
                    batch[0][1].set_exception(error)
            else:
                for entry in batch:
                    if not entry[1].done():
                        self._finish([entry])
                return
        taken = (time.monotonic() - start_secs) / len(batch)
        before = self._secs_per_item
        self._secs_per_item = before + _NEWEST_WEIGHT * (taken - before) if before else taken
