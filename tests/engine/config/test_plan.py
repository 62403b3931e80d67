"""How a training is described before its first update."""

from __future__ import annotations

from engine.config import plan
from tests.helpers.experiment_toys import make_config


def test_a_finished_run_that_counts_in_epochs_is_told_epochs(tmp_path):
    config = make_config(tmp_path, schedule="constant", hold_updates=0, num_epochs=3.0)
    said = plan.describe_finished(config, workdir="runs/hi", step=6)
    assert said.endswith("nothing to train; to train longer, give --config.train.num_epochs=6")
