"""The search for the longest clip, and a process that holds too much."""

from __future__ import annotations

import sys

import pytest

from benchmarks import protocol
from benchmarks.clip_memory import longest


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (7, 7), (40, 40), (99, 40)])
def test_the_largest_number_that_fits_is_found(limit, expected):
    tried = []

    def fits(number):
        tried.append(number)
        return number <= limit

    assert longest(fits, low=1, high=40) == expected
    assert len(tried) <= 6


def test_a_process_that_was_killed_is_an_error_of_the_question():
    worker = protocol.Worker(python=sys.executable, module="tests.benchmarks.sleeping_side", arguments={})
    assert worker.resident_bytes() > 2**20
    worker.kill()
    with pytest.raises(RuntimeError, match="has died"):
        worker.ask("run_once")
    worker.close()
    assert worker.resident_bytes() == 0
