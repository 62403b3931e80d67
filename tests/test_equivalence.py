"""The same weights and the same transcripts for any replicas, microbatches, padding and number of processes.

Also if every step is compiled whole, as a TPU needs it (what else it needs: tests/test_tpu.py).

The default tier runs a core of the matrix (and tests/engine/test_any_devices.py more of it, with a toy model); the slow
one all of it: (1, 2, 3, 4, 8 logical CPUs) x (microbatches of 16, 3, 1 rows) x (bucketed or padded to the longest), and
evaluation with (1, 2, 3, 4, 8 replicas) x (batch 1, 3, 8).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from models.ctc import loss as ctc_loss
from models.ctc import paths
from tests.helpers import equivalence
from tests.helpers.device_graph import find_faults
from tests.helpers.workers import ROOT, run_workers

TOLERANCE = 1e-5  # relative, float32
EMA_DECAY = 0.5


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def mirrored(two_replicas):
    """Two replicas here, microbatches of 3, 3 and 2 rows, padded to the bucket; averages behind the weights."""
    return equivalence.train(two_replicas, microbatch_rows=3, ema_decay=EMA_DECAY)


@pytest.fixture(scope="module")
def alone():
    """One device, one microbatch, all rows padded to the longest."""
    return equivalence.train(tf.distribute.OneDeviceStrategy("/cpu:0"), is_bucketed=False)


def test_replicas_microbatches_and_padding_change_no_weight(mirrored, alone):
    before = equivalence.make_trainer(tf.distribute.OneDeviceStrategy("/cpu:0")).model.trainable_variables
    moved = [np.abs(a - b.numpy()).max() for a, b in zip(alone[0], before, strict=True)]
    assert np.median(moved) > 1e-3  # five updates of learning rate 0.01: a thousand times the tolerance
    assert equivalence.largest_difference(mirrored[0][: len(alone[0])], alone[0]) < TOLERANCE
    assert mirrored[1] == pytest.approx(alone[1], rel=1e-5)


# What some models of the family have, as few networks as hold all of it, and the number of their trained weights.
PARTS = [
    {
        "relative_position_buckets": 8, "relative_position_max_distance": 20, "pos_conv_norm": "layer",
        "pos_conv_depth": 2, "attention_adapter_size": 4,
    },
    {"layer_kind": "conformer", "attention_positions": "relative", "depthwise_kernel": 5, "convolution_dropout": 0.1},
    {
        "front_end": "log_mel", "normalize_waveform": False, "layer_kind": "conformer", "depthwise_causal": True,
        "depthwise_norm": "layer", "attention_positions": "relative_key", "depthwise_kernel": 5, "activation": "swish",
        "length_adapter": "attention", "length_adapter_stride": 1, "length_adapter_kernel": 1,
        "num_length_adapters": 1,
    },
]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "num_weights"),
    [
        pytest.param(PARTS[0], 68, id="wavlm", marks=pytest.mark.slow),
        pytest.param(PARTS[1], 81, id="conformer", marks=pytest.mark.slow),
        pytest.param(PARTS[2], 83, id="bert", marks=pytest.mark.slow),
    ],
)
def test_parts_that_some_models_have_do_not_see_replicas_microbatches_and_padding_either(
    two_replicas, parts, num_weights
):
    model = {**equivalence.MODEL, **parts}
    split = equivalence.train(two_replicas, microbatch_rows=3, model=model)
    alone = equivalence.train(tf.distribute.OneDeviceStrategy("/cpu:0"), is_bucketed=False, model=model)
    assert len(alone[0]) == len(split[0]) == num_weights
    assert equivalence.largest_difference(split[0], alone[0]) < TOLERANCE
    assert split[1] == pytest.approx(alone[1], rel=1e-5)


def test_compiled_as_for_a_tpu_it_trains_the_same_weights_and_hears_the_same_texts(alone, monkeypatch):
    """Loop in the graph, microbatches of 6, 6 and 4; the whole update and the whole evaluation step an XLA program."""
    # TensorFlow would call a trace with unknown shapes that other tests of the process have left.
    fresh = tf.function(paths.sum_paths.python_function, autograph=False)
    monkeypatch.setattr(ctc_loss, "sum_paths", fresh)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer = equivalence.make_trainer(
        strategy, microbatch_rows=6, is_bucketed=False, loop_in_graph=True, ema_decay=0.9, max_consecutive_skips=2,
    )  # fmt: skip
    trainer.update = compiled(trainer.update)
    figures = trainer.train(tf.constant(equivalence.NUM_UPDATES))
    assert equivalence.largest_difference([v.numpy() for v in trainer.model.trainable_variables], alone[0]) < TOLERANCE
    assert figures["loss"] == pytest.approx(alone[1], rel=1e-5)
    (update,) = trainer.update._list_all_concrete_functions()
    assert find_faults(update) == []

    trainer.model.head.bias.assign(tf.one_hot(0, 32) * -9.0)  # five updates teach blanks: without them there is a text
    plain = equivalence.make_evaluator(strategy, trainer.model, batch_size=6)
    whole = equivalence.make_evaluator(
        strategy, trainer.model, batch_size=6, bucket_boundaries=equivalence.BOUNDARIES[-1:]
    )
    whole._transcribe = compiled(whole._transcribe)
    texts, loss = equivalence.evaluate(plain)
    assert equivalence.evaluate(whole) == (texts, pytest.approx(loss, rel=1e-5))
    assert any(row["hypothesis"] for row in json.loads(texts)["predictions"])
    (step,) = whole._transcribe._list_all_concrete_functions()
    assert find_faults(step) == []


def compiled(step):
    return tf.function(step, jit_compile=True, autograph=False)


def test_two_processes_equal_two_replicas_of_one(mirrored, two_replicas, tmp_path):
    """multi_worker over the loopback: weights, their averages, loss, and an evaluation that both know all of."""
    module = ["-m", "tests.helpers.equivalence", "--strategy=multi_worker", "--cases=3:bucketed", "--eval_batches=3"]
    module += [f"--ema_decay={EMA_DECAY}"]
    run_workers([[*module, f"--output={tmp_path}/{index}.npz"] for index in range(2)], tmp_path)
    first, second = load(tmp_path / "0.npz"), load(tmp_path / "1.npz")
    assert first["num_replicas"] == second["num_replicas"] == 2
    found = [first[f"3:bucketed/{i}"] for i in range(len(mirrored[0]))]
    middle = len(found) // 2
    assert equivalence.largest_difference(found[:middle], found[middle:]) > 1e-2  # averages lag behind
    assert equivalence.largest_difference(found, mirrored[0]) < TOLERANCE
    assert all((first[name] == second[name]).all() for name in first)  # bit by bit: they hold one model
    assert first["heard"].tolist() == [15]  # a handler of ours has outlived the start of the cluster
    assert first["any_worker"].tolist() == [False, True, False]  # what is so on the second is known to the first
    assert float(first["3:bucketed/loss"]) == pytest.approx(mirrored[1], rel=1e-5)
    model = equivalence.make_trainer(two_replicas).model
    counts, _ = equivalence.evaluate(equivalence.make_evaluator(two_replicas, model, batch_size=3))
    assert str(first["eval/3"]) == counts
    assert json.loads(str(first["eval/3"]))["num_words"] > 0


@pytest.mark.slow
def test_the_whole_matrix(tmp_path):
    cases = [f"{rows}:{padding}" for rows in (16, 3, 1) for padding in ("bucketed", "padded")]
    results = {}
    for replicas in (1, 2, 3, 4, 8):
        output = tmp_path / f"{replicas}.npz"
        command = [
            sys.executable, "-m", "tests.helpers.equivalence", f"--output={output}", f"--replicas={replicas}",
            f"--cases={','.join(cases)}", "--eval_batches=1,3,8",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, timeout=900)
        results[replicas] = load(output)
        assert results[replicas]["num_replicas"] == replicas
    wanted = results[1]
    num_weights = sum(name.startswith("16:bucketed/") for name in wanted) - 1
    plain = [wanted[f"16:bucketed/{i}"] for i in range(num_weights)]
    differences = {}
    for replicas, result in results.items():
        for case in cases:
            found = [result[f"{case}/{i}"] for i in range(num_weights)]
            differences[replicas, case] = equivalence.largest_difference(found, plain)
            assert float(result[f"{case}/loss"]) == pytest.approx(float(wanted["16:bucketed/loss"]), rel=1e-5)
    print(differences)
    assert len(differences) == 30
    assert max(differences.values()) < TOLERANCE, differences
    texts = {str(result[f"eval/{size}"]) for result in results.values() for size in (1, 3, 8)}
    assert len(texts) == 1  # S, D, I and every hypothesis
    counts = json.loads(texts.pop())
    assert sum(counts[name] for name in ("substitutions", "deletions", "insertions")) > 0
