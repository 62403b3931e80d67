"""What training prints: lines by count and by time, a forecast, a bar below the lines of a terminal."""

from __future__ import annotations

import io
import logging
import time

import pytest
import tensorflow as tf
from orbit import controller

from engine.console import training_log
from engine.console.training_log import TrainingLog, without_orbit_prints


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, logger="absl")


def make_log(step, **fields):
    return TrainingLog(global_step=step, file=io.StringIO(), **fields)


def test_the_first_update_has_a_line_whatever_the_interval(step, clock, caplog):
    with make_log(step, num_updates=10) as log:
        clock[0] += 40
        step.assign(1)
        log.after_update()
    assert caplog.messages == ["first update after 40 s; it included compilation"]


def test_loops_that_follow_within_seconds_share_a_line_and_the_last_has_one(step, clock, caplog):
    with make_log(step, num_updates=10, min_secs=5.0) as log:
        for done in range(2, 11, 2):
            clock[0] += 2
            step.assign(done)
            log({"loss": float(done)})
            log.resume()
    lines = [message for message in caplog.messages if message.startswith("update ")]
    assert [line.split("  ")[0] for line in lines] == ["update 2/10", "update 10/10"]
    assert "loss 10" in lines[1] and "1.0 s/update" in lines[1]


def test_within_a_long_loop_there_is_a_line_by_time_with_the_loss_so_far(step, clock, caplog):
    with make_log(step, num_updates=80_000, max_secs=25.0, peek=lambda: {"loss": 7.0}) as log:
        for done in range(1, 8):
            clock[0] += 10
            step.assign(done)
            log.after_update()
    lines = [message for message in caplog.messages if message.startswith("update ")]
    assert [line.split("  ")[0] for line in lines] == ["update 4/80,000", "update 7/80,000"]
    assert "loss 7" in lines[1] and "10.0 s/update" in lines[1] and "ETA 9.3 days" in lines[1]


def test_an_update_that_takes_longer_than_the_silence_has_its_own_line_too(step, caplog):
    with make_log(step, num_updates=80, max_secs=0.05, peek=lambda: {"loss": 7.0}) as log:
        for done in range(1, 4):
            time.sleep(0.12)  # the thread breaks the silence before the update ends
            step.assign(done)
            log._last_read = 0.0  # the step is read once a second at most
            log.after_update()
    said = [message for message in caplog.messages if message.startswith("update ")]
    assert any("still running" in line for line in said)
    assert [line.split("  ")[0] for line in said if "loss 7" in line] == ["update 2/80", "update 3/80"]


def test_the_whole_run_is_forecast_once(step, clock, caplog):
    with make_log(step, num_updates=80_000) as log:
        clock[0] += 60  # compilation
        for done in range(1, 9):
            step.assign(done)
            log.after_update()
            clock[0] += 11.7
    said = [message for message in caplog.messages if message.startswith("forecast")]
    assert said == ["forecast: 11.7 s/update, 80,000 updates: 10.8 days without evaluations"]


def test_an_evaluation_does_not_count_as_slow_training_but_the_time_left_has_those_to_come(step, clock, caplog):
    with make_log(step, num_updates=40, eval_every=10, min_secs=0.0) as log:
        for done in (10, 20):
            clock[0] += 10
            step.assign(done)
            log({})
            clock[0] += 30  # an evaluation
            log.resume({"dev": {"wer": 1.0}})
        clock[0] += 10
        step.assign(30)
        log({})
    assert "1.0 s/update" in caplog.messages[-1] or "1 updates/s" in caplog.messages[-1]
    assert log.secs_left() == pytest.approx(10 + 30)


def test_a_long_silence_is_broken_from_another_thread(step, caplog):
    with make_log(step, num_updates=5, max_secs=0.2) as log:
        deadline = time.monotonic() + 5
        while not any("still preparing the first update" in message for message in caplog.messages):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        step.assign(1)
        log.after_update()
        while not any("update 2/5 is still running" in message for message in caplog.messages):
            assert time.monotonic() < deadline
            time.sleep(0.02)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar(step):
    file = _Terminal()
    step.assign(20)
    with TrainingLog(global_step=step, num_updates=100, file=file) as log:
        step.assign(40)
        log({"loss": 1.0})
    assert " 20/100 " in file.getvalue()
    with TrainingLog(global_step=step, num_updates=100, file=file):
        pass
    assert " 40/100 " in file.getvalue()


def test_orbit_logs_but_prints_nothing_within_the_context(capsys, caplog):
    with without_orbit_prints(), without_orbit_prints():
        controller._log("train | {'loss': 1.0}")
    assert capsys.readouterr().out == "" and caplog.messages == ["train | {'loss': 1.0}"]
    controller._log("after it")
    assert "after it" in capsys.readouterr().out
