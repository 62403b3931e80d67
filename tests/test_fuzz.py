"""Mutated audio, manifests, configs, weights, reports and requests: read, or refused in a line that names the file."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.harness import run_cases
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_lines

SEED = 14
MEMORY_BYTES = 2 * 2**30


def check(*, seed: int, count: int, timeout_secs: float) -> None:
    outcome = run_cases(seed=seed, count=count, timeout_secs=timeout_secs)
    assert not outcome.failures, f"{len(outcome.failures)} of {count} inputs:\n" + "\n".join(outcome.failures[:40])
    assert 0 < outcome.peak_bytes < MEMORY_BYTES


def test_some_hundred_mutated_inputs_are_read_or_refused_in_one_line():
    check(seed=SEED, count=400, timeout_secs=240)


@pytest.mark.full
def test_ten_thousand_mutated_inputs_are_read_or_refused_in_one_line():
    check(seed=SEED + 1, count=10_000, timeout_secs=3600)


def test_mutations_come_from_their_seed_and_differ():
    value = {"a": [1, 2.5, {"b": "c"}], "d": None}
    for mutate, content in ((mutate_bytes, b"RIFF" * 50), (mutate_json, value), (mutate_lines, [value] * 3)):
        found = [mutate(random.Random(seed), content) for seed in range(60)]
        assert found == [mutate(random.Random(seed), content) for seed in range(60)]
        assert len(set(found)) > 40
    assert value == {"a": [1, 2.5, {"b": "c"}], "d": None}
