"""Writes shards in parallel processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from common.cores import count_cores
from data.common.errors import InputError
from data.common.files import Lock, join_writer
from data.shards.writer import ShardTask, too_many_bad, write_shard

_POLL_SECS = 0.2
# Objects that a worker process shares with its parent; tasks of an executor cannot receive them as arguments.
_shared: dict[str, Any] = {}


class LocalRunner:
    """Writes shards with `num_workers` processes, or in this process if that is 1."""

    def __init__(self, *, num_workers: int | None = None):
        """Chooses the number of processes.

        Args:
            num_workers: Number of processes; None = one for each processor core that this process may use.

        Raises:
            InputError: If it is below 1.
        """
        if num_workers is not None and num_workers < 1:
            raise InputError(f"num_workers is {num_workers}, wanted at least 1")
        self._num_workers = num_workers or count_cores()

    def __call__(self, tasks: Sequence[ShardTask], *, folder: str, lock: Lock, bar: tqdm, max_bad: int) -> None:
        """Writes every shard and its note; the first error stops the others, and finished shards stay.

        Args:
            tasks: At least one task.
            folder: Folder of the shards.
            lock: Lock of the folder.
            bar: Progress bar of utterances.
            max_bad: Most unreadable utterances to leave out over all tasks.

        Raises:
            InputError: If more utterances are bad, or a worker process was killed.
            OSError: If a shard cannot be written.
        """
        skipped: dict[str, Any] = {}

        def check(note: dict[str, Any] | None) -> None:
            skipped.update(note["skipped"] if note else {})
            if len(skipped) > max_bad:
                raise too_many_bad(skipped, max_bad)

        num_workers = min(self._num_workers, len(tasks))
        if num_workers == 1:
            for task in tasks:
                check(write_shard(task, advance=lambda count: _update(bar, bar.n + count)))
        else:
            _run_in_processes(tasks, num_workers, folder, lock, bar, check)


def _run_in_processes(
    tasks: Sequence[ShardTask],
    num_workers: int,
    folder: str,
    lock: Lock,
    bar: tqdm,
    check: Callable[[dict[str, Any] | None], None],
) -> None:
    # Not "fork", because threads of this process may hold locks. The server imports TensorFlow once for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "soundfile", "soxr"])
    # Memory without locks: a worker that is killed while it holds one would hold it for ever.
    counts, stop = context.RawArray("q", len(tasks)), context.RawValue("b", False)
    start = bar.n
    lock.share()
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_start, initargs=(folder, counts, stop)
    ) as pool:
        try:
            pending = {pool.submit(_write, number, task) for number, task in enumerate(tasks)}
            while pending:
                done, pending = wait(pending, timeout=_POLL_SECS, return_when=FIRST_COMPLETED)
                _update(bar, start + sum(counts))
                for future in done:
                    check(future.result())
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps because memory ran out: run the same command again "
                "with a smaller --num_workers"
            ) from error
        finally:
            stop.value = True
            pool.shutdown(wait=True, cancel_futures=True)


def _start(folder: str, counts: Any, stop: Any) -> None:
    """Makes this process a worker that ends with its parent, however that ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, but the parent stops the workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    join_writer(folder)
    _shared.update(counts=counts, stop=stop)


def _follow_parent() -> None:
    # A worker waits for tasks on a pipe that it holds open itself, so the pipe does not show that the parent died.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write(number: int, task: ShardTask) -> dict[str, Any] | None:
    counts, stop = _shared["counts"], _shared["stop"]

    def advance(count: int) -> None:
        counts[number] += count  # no other worker has this task

    note = write_shard(task, advance=advance, is_stopped=lambda: bool(stop.value))
    return {"skipped": note["skipped"]} if note else None  # the columns are on disk


def _update(bar: tqdm, count: int) -> None:
    bar.update(count - bar.n)
