"""What the log says before the first update."""

from __future__ import annotations

import logging
import re

import pytest

from common import workdir_layout as layout
from engine import experiment
from engine.console import startup
from tests.helpers.experiment_toys import make_config, make_parts


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


def test_a_note_of_a_stop_is_read_once_and_a_damaged_one_says_nothing(tmp_path):
    assert startup.take_stop_note(str(tmp_path)) == {}
    startup.note_stop(str(tmp_path), reason="SIGTERM", step=445)
    note = startup.take_stop_note(str(tmp_path))
    assert (note["reason"], note["step"]) == ("SIGTERM", 445)
    assert startup.take_stop_note(str(tmp_path)) == {}
    for content in (b"", b"[1]", b'{"step": "x"}', b"\xff" * 9):
        (tmp_path / layout.STOPPED_FILE).write_bytes(content)
        assert startup.take_stop_note(str(tmp_path)) == {}
        assert not (tmp_path / layout.STOPPED_FILE).exists()


@pytest.mark.parametrize(
    ("note", "reached", "said"),
    [
        ({}, 0, ""),
        ({}, 400, ""),
        ({"reason": "SIGTERM", "time": "T", "step": 400}, 400, "stopped by SIGTERM at T, with all its updates saved"),
        ({"reason": "SIGTERM (not done after 27 s)", "time": "T", "step": 445}, 440,
         r"stopped by SIGTERM \(not done after 27 s\) at T; 45 updates after the last checkpoint were lost"),
        ({"reason": "SIGHUP", "time": "T", "step": 401}, 400, "1 update after the last checkpoint was lost and is"),
        ({}, 440, r"ended without a note \(killed or crashed\); 40 updates after the last checkpoint were lost"),
    ],
)  # fmt: skip
def test_the_next_start_says_what_it_found(note, reached, said):
    found = startup.describe_last_stop(note, step=400, reached=reached)
    assert re.search(said, found) and bool(found) == bool(said)
