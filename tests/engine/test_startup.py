"""What the log says before the first update."""

from __future__ import annotations

import logging

import pytest

from engine import experiment
from tests.experiment_toys import make_config, make_parts


@pytest.fixture
def said(caplog):
    """Runs `make_config` to an update and returns what was logged."""
    # absl's logger keeps its records from the root logger, where caplog listens.
    logger = logging.getLogger("absl")
    before, logger.propagate = (logger.level, logger.propagate), True
    logger.setLevel(logging.INFO)

    def run(workdir, num_updates):
        caplog.clear()
        config = make_config(workdir.parent, num_updates=6)
        experiment.run(
            config=config, parts=make_parts(), workdir=str(workdir), mode="train", strategy_name="one_device"
        )
        return caplog.text

    yield run
    logger.setLevel(before[0])
    logger.propagate = before[1]


def test_a_run_says_where_it_runs_what_it_starts_from_and_where_it_continues(said, tmp_path):
    text = said(tmp_path / "run", 6)
    assert "OneDeviceStrategy, 1 replica(s), devices: CPU" in text
    assert "8 training utterances, 0.01 h, 1 updates an epoch; global batch 4 = 4 rows x 1 replicas" in text
    assert "x 1 microbatches, 20.0 audio-seconds an update" in text
    assert "starting at update 0 of 6" in text
    assert "fresh" in text and "restored" not in text
    text = said(tmp_path / "run", 6)
    assert "continuing at update 6 of 6" in text
    assert "restored" in text
