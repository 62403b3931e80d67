"""A bar on a terminal, lines in the log elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from engine.common import progress
from engine.common.progress import progress_bar


def test_a_terminal_gets_a_bar_with_rate_and_total(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=4, description="work", unit="file", initial=1) as bar:
        bar.update(2)
        bar.refresh()
    assert "work" in stream.getvalue()
    assert "3/4" in stream.getvalue()


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, logger="absl")


def test_a_short_job_is_silent_in_a_pipe(capsys, caplog):
    with progress_bar(total=3, description="work", unit="file") as bar:
        bar.update(3)
    assert capsys.readouterr().err == "" and caplog.messages == []


def test_a_long_job_in_a_pipe_logs_how_far_it_is(capsys, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECS", 0.0)
    with progress_bar(total=3, description="eval dev", unit="batch") as bar:
        for _ in range(3):
            bar.update(1)
    assert [message.split(" batch,")[0] for message in caplog.messages] == ["eval dev: 1/3", "eval dev: 2/3"]
    assert "batch/s, ETA 00:0" in caplog.messages[0]
    assert capsys.readouterr().err == ""


def test_the_steps_of_an_earlier_process_took_no_time_of_this_one(caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECS", 0.0)
    with progress_bar(total=2_000, description="work", unit="row", initial=1_000) as bar:
        bar.start_t -= 10.0
        bar.update(10)
    (line,) = caplog.messages  # none at the start, where there is no rate yet
    assert line.startswith("work: 1010/2000 row, 1 row/s, ETA 16:")


def test_quiet_means_neither(capsys, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECS", 0.0)
    with progress_bar(total=3, description="work", unit="file", quiet=True) as bar:
        bar.update(1)
    assert capsys.readouterr().err == "" and caplog.messages == []
