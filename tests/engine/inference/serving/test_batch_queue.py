"""The queue: batches, its bound, what is given up, what fails, and its end."""

from __future__ import annotations

import threading

import pytest

from engine.common.out_of_memory import OutOfMemoryError
from engine.inference.serving.batch_queue import QueueFullError, WorkQueue


class Gated:
    """Doubles its items; each batch waits for a permit."""

    def __init__(self):
        self.batches, self.permits, self.has_begun = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, items):
        self.batches.append(list(items))
        self.has_begun.release()
        assert self.permits.acquire(timeout=10)
        if "bad" in items:
            raise RuntimeError("a bad item")
        return [item * 2 for item in items]


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def queue(gated):
    queue = WorkQueue(do_batch=gated, batch_size=3, max_pending=6)
    yield queue
    gated.permits.release(100)
    assert queue.close(timeout_secs=10)


def test_what_comes_while_a_batch_runs_is_the_next_batch(queue, gated):
    futures = [queue.submit(0)]
    assert gated.has_begun.acquire(timeout=10)
    futures += [queue.submit(item) for item in range(1, 6)]
    assert queue.num_pending == 6
    with pytest.raises(QueueFullError):
        queue.submit(6)
    gated.permits.release(3)
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert gated.batches == [[0], [1, 2, 3], [4, 5]]


def test_what_was_given_up_is_not_done_and_makes_room(queue, gated):
    futures = [queue.submit(0)]
    assert gated.has_begun.acquire(timeout=10)
    futures += [queue.submit(item) for item in range(1, 6)]
    assert futures[2].cancel() and not futures[0].cancel()
    futures[2] = queue.submit(7)
    gated.permits.release(3)
    assert [future.result(10) for future in futures] == [0, 2, 14, 6, 8, 10]
    assert gated.batches == [[0], [1, 3, 4], [5, 7]]


def test_one_bad_item_costs_the_others_of_its_batch_nothing(queue, gated):
    first = queue.submit(0)
    assert gated.has_begun.acquire(timeout=10)
    futures = [queue.submit(item) for item in (1, "bad", 3)]
    gated.permits.release(5)
    assert (first.result(10), futures[0].result(10), futures[2].result(10)) == (0, 2, 6)
    with pytest.raises(RuntimeError, match="a bad item"):
        futures[1].result(10)
    assert gated.batches == [[0], [1, "bad", 3], [1], ["bad"], [3]]


def test_the_end_finishes_what_was_taken_and_takes_nothing_more(gated):
    queue = WorkQueue(do_batch=gated, batch_size=1, max_pending=6)
    futures = [queue.submit(item) for item in (1, 2)]
    assert not queue.close(timeout_secs=0.01)
    with pytest.raises(QueueFullError):
        queue.submit(3)
    gated.permits.release(2)
    assert queue.close(timeout_secs=10)
    assert [future.result(0) for future in futures] == [2, 4] and queue.num_pending == 0


def test_an_item_too_large_for_the_memory_costs_one_line_and_the_others_nothing(caplog):
    def do_batch(items):
        if "huge" in items:
            raise OutOfMemoryError("out of memory on GPU 0; lower --serve.batch_size")
        return items

    queue = WorkQueue(do_batch=do_batch, batch_size=4, max_pending=8)
    futures = [queue.submit(item) for item in ("a", "huge", "b")]
    with pytest.raises(OutOfMemoryError):
        futures[1].result(timeout=10)
    assert [futures[0].result(timeout=10), futures[2].result(timeout=10)] == ["a", "b"]
    assert queue.close(timeout_secs=10)
    (record,) = caplog.records
    assert record.getMessage() == "a request failed: out of memory on GPU 0; lower --serve.batch_size"
    assert not record.exc_info
