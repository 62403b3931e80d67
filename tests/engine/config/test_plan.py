"""How a training is described before its first update."""

from __future__ import annotations

import types

import pytest

from engine.config import plan
from tests.helpers.experiment_toys import make_config

DATA = types.SimpleNamespace(
    num_utterances=320, duration_secs=3600.0, updates_per_epoch=10, describe_corpora=lambda: []
)


@pytest.mark.parametrize(
    ("num_replicas", "fields", "wanted"),
    [
        (1, {}, "global batch 32 = 4 rows x 1 replicas x 8 microbatches"),
        (8, {}, "global batch 32 = 4 rows x 8 replicas x 1 microbatches"),
        (3, {}, "global batch 32 = 4 rows x 3 replicas x 3 microbatches less 4 padding rows"),
        (3, {"train.microbatch_rows": 100}, "global batch 32 = 11 rows x 3 replicas x 1 microbatches less 1 padding"),
        (40, {}, "global batch 32 = 1 rows x 40 replicas x 1 microbatches less 8 padding rows"),
        (2, {"train.microbatch_secs": 20.0}, "batch 32, over 2 replicas, in microbatches of at most 20 s with padding"),
        (
            3,
            {"data.max_batch_secs": 80.0},
            "up to 80 s with padding, its rows a multiple of 8, over 3 replicas, in",
        ),
        (
            3,
            {"data.max_batch_secs": 80.0},
            "of at most 4 rows (train.microbatch_secs counts audio instead)",
        ),
    ],
)
def test_the_plan_says_what_follows_from_the_devices(tmp_path, num_replicas, fields, wanted):
    config = make_config(tmp_path, global_batch_size=32, microbatch_rows=4)
    config.update_from_flattened_dict(fields)
    (line,) = plan.describe_plan(config, DATA, num_replicas=num_replicas)
    assert wanted in line and line.endswith(", 360.0 audio-seconds an update")


def test_a_finished_run_that_counts_in_epochs_is_told_epochs(tmp_path):
    config = make_config(tmp_path, schedule="constant", hold_updates=0, num_epochs=3.0)
    said = plan.describe_finished(config, workdir="runs/hi", step=6)
    assert said.endswith("nothing to train; to train longer, give --config.train.num_epochs=6")


def test_a_config_of_an_older_version_is_described_too(tmp_path):
    config = make_config(tmp_path, global_batch_size=32)
    for name in ("microbatch_rows", "microbatch_secs", "num_epochs"):
        del config.train[name]
    (line,) = plan.describe_plan(config, DATA, num_replicas=2)
    assert "global batch 32 = 16 rows x 2 replicas x 1 microbatches, " in line
    assert "nothing to train" in plan.describe_finished(config, workdir="runs/hi", step=6)
