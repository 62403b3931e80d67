"""The same weights and the same transcripts for any replicas, accumulation, padding and number of processes.

The default tier runs a core of the matrix; the slow one all of it: (1, 2, 4 logical CPUs) x (accumulation 1, 2, 4) x
(bucketed or padded to the longest), and evaluation with (1, 2, 4 replicas) x (batch 1, 3, 8).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import equivalence
from tests.workers import ROOT, run_workers

TOLERANCE = 1e-5  # relative, float32


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def mirrored(two_replicas):
    """Two replicas in this process, two microbatches each, padded to the bucket."""
    return equivalence.train(two_replicas, accum_steps=2)


def test_replicas_accumulation_and_padding_change_no_weight(mirrored):
    before = equivalence.make_trainer(tf.distribute.OneDeviceStrategy("/cpu:0")).model.trainable_variables
    alone, loss = equivalence.train(tf.distribute.OneDeviceStrategy("/cpu:0"), is_bucketed=False)
    moved = [np.abs(a - b.numpy()).max() for a, b in zip(alone, before, strict=True)]
    assert np.median(moved) > 1e-3  # five updates of learning rate 0.01: a thousand times the tolerance
    assert equivalence.largest_difference(mirrored[0], alone) < TOLERANCE
    assert mirrored[1] == pytest.approx(loss, rel=1e-5)


def test_two_processes_equal_two_replicas_of_one(mirrored, two_replicas, tmp_path):
    """multi_worker over the loopback: weights, loss, and an evaluation merged from both, known to both."""
    module = ["-m", "tests.equivalence", "--strategy=multi_worker", "--cases=2:bucketed", "--eval_batches=3"]
    run_workers([[*module, f"--output={tmp_path}/{index}.npz"] for index in range(2)], tmp_path)
    first, second = load(tmp_path / "0.npz"), load(tmp_path / "1.npz")
    assert first["num_replicas"] == second["num_replicas"] == 2
    found = [first[f"2:bucketed/{i}"] for i in range(len(mirrored[0]))]
    assert equivalence.largest_difference(found, mirrored[0]) < TOLERANCE
    assert all((first[name] == second[name]).all() for name in first)  # bit by bit: they hold one model
    assert float(first["2:bucketed/loss"]) == pytest.approx(mirrored[1], rel=1e-5)
    model = equivalence.make_trainer(two_replicas).model
    assert str(first["eval/3"]) == equivalence.evaluate(two_replicas, model, batch_size=3)
    assert json.loads(str(first["eval/3"]))["num_words"] > 0


@pytest.mark.slow
def test_the_whole_matrix(tmp_path):
    cases = [f"{accum}:{padding}" for accum in (1, 2, 4) for padding in ("bucketed", "padded")]
    results = {}
    for replicas in (1, 2, 4):
        output = tmp_path / f"{replicas}.npz"
        command = [
            sys.executable, "-m", "tests.equivalence", f"--output={output}", f"--replicas={replicas}",
            f"--cases={','.join(cases)}", "--eval_batches=1,3,8",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, timeout=900)
        results[replicas] = load(output)
        assert results[replicas]["num_replicas"] == replicas
    wanted = results[1]
    num_weights = sum(name.startswith("1:bucketed/") for name in wanted) - 1
    plain = [wanted[f"1:bucketed/{i}"] for i in range(num_weights)]
    differences = {}
    for replicas, result in results.items():
        for case in cases:
            found = [result[f"{case}/{i}"] for i in range(num_weights)]
            differences[replicas, case] = equivalence.largest_difference(found, plain)
            assert float(result[f"{case}/loss"]) == pytest.approx(float(wanted["1:bucketed/loss"]), rel=1e-5)
    print(differences)
    assert len(differences) == 18
    assert max(differences.values()) < TOLERANCE, differences
    texts = {str(result[f"eval/{size}"]) for result in results.values() for size in (1, 3, 8)}
    assert len(texts) == 1  # S, D, I and every hypothesis
    counts = json.loads(texts.pop())
    assert sum(counts[name] for name in ("substitutions", "deletions", "insertions")) > 0
