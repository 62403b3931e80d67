"""Any number of devices trains the same model from the same config, continues any workdir, and evaluates alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engine.eight_devices import CHAIN, NUM_ROWS, SPLITS, VARYING

ROOT = Path(__file__).resolve().parents[2]
EXACT = ("num_rows", "num_infeasible", "num_bad", "num_skipped_updates", "clipped_ratio", "audio_secs")
CLOSE = (
    "loss", "blank_ratio", "mean_confidence", "labels_per_frame", "gradient_norm", "padding_ratio", "learning_rate",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process with eight logical CPUs found."""
    folder = tmp_path_factory.mktemp("devices")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.eight_devices", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


def assert_same_metrics(found, wanted):
    for name in EXACT:
        assert found[name] == wanted[name], name
    for name in CLOSE:
        assert found[name] == pytest.approx(wanted[name], rel=1e-5), name


def test_every_split_of_an_update_trains_the_same_weights_on_the_same_data(found):
    for num_updates, num_splits, num_rows in ((3, len(SPLITS), 3 * NUM_ROWS - 3), (4, 2, sum(VARYING) - 2)):
        plain, *others = [one for one in found["splits"] if one["split"][2] == num_updates]
        assert len(others) == num_splits
        assert plain["metrics"]["num_rows"] == num_rows and plain["metrics"]["num_bad"] > 0
        assert plain["metrics"]["num_infeasible"] > 0 and plain["metrics"]["padding_ratio"] > 0
        for other in others:
            np.testing.assert_allclose(other["weights"], plain["weights"], rtol=1e-5, atol=1e-6, err_msg=other["split"])
            assert other["digest"] == plain["digest"] != 0, other["split"]
            assert_same_metrics(other["metrics"], plain["metrics"])


def test_a_workdir_goes_on_with_other_devices_as_if_it_had_never_moved(found):
    moved, stayed = found["resumed"]["moved"], found["resumed"]["stayed"]
    assert moved["weights"].keys() == stayed["weights"].keys() and len(stayed["weights"]) > 5
    for name, wanted in stayed["weights"].items():
        np.testing.assert_allclose(moved["weights"][name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [line["step"] for line in moved["lines"]] == [2, 4, 6, 8] == [line["step"] for line in stayed["lines"]]
    for found_line, wanted in zip(moved["lines"], stayed["lines"], strict=True):
        assert found_line["data_digest"] == wanted["data_digest"]
        assert_same_metrics(found_line, wanted)


def test_what_memory_a_run_takes_may_change_and_is_said_and_recorded(found):
    assert found["resumed"]["config"]["microbatch_rows"] == CHAIN[-1][1]
    assert (
        "continues with other values: train.microbatch_rows was 10, is 2; train.num_updates was 2, is 4" in found["log"]
    )
    assert "model.gradient_checkpointing was false, is true" in found["log"]


@pytest.mark.parametrize(("num_replicas", "batch_size"), [("3", 6), ("8", 8)])
def test_an_evaluation_has_no_use_for_the_training_batch(found, num_replicas, batch_size):
    evaluated = found["evaluated"][num_replicas]
    assert evaluated["batch_sizes"] == [batch_size] * 3
    # The same rows and, from the weights of the same update or of the best one, losses that are numbers.
    assert evaluated["train_and_eval"] == evaluated["continuous_eval"]
    assert evaluated["eval"][0] == evaluated["train_and_eval"][0] == 2 * batch_size
