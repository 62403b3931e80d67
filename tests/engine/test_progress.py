"""The bar is silent where nobody watches."""

from __future__ import annotations

import io
import sys

import pytest
import tensorflow as tf

from engine import progress
from engine.progress import ProgressBar, progress_bar


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


def test_bar_writes_nothing_to_a_pipe(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=3, description="work", unit="file") as bar:
        bar.update(3)
    assert stream.getvalue() == ""


def test_bars_do_without_a_standard_error_that_was_closed_before_the_program_began(monkeypatch, step):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(total=3, description="work", unit="file") as bar, ProgressBar(global_step=step, num_updates=2):
        bar.update(3)


def test_bar_shows_rate_and_total_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=4, description="work", unit="file", initial=1) as bar:
        bar.update(2)
        bar.refresh()
    assert "work" in stream.getvalue()
    assert "3/4" in stream.getvalue()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_shows_updates_rate_and_figures(step, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    step.assign(20)
    file = _Terminal()
    with ProgressBar(global_step=step, num_updates=100, file=file) as bar:
        now[0] += 30.0
        bar.restart_clock({"dev": {"wer": 1.0}})  # An evaluation of 30 s.
        now[0] += 4.0
        step.assign(40)
        bar({"loss": tf.constant(2.5), "audio_secs": 50.0, "padding_share": 0.0625})
    shown = file.getvalue()
    assert " 20/100 " in shown
    assert " 40/100 " in shown
    assert "loss=2.500, audio-s/s=12.5, padding=6.2%" in shown
    assert "update/s" in shown or "s/update" in shown


def test_bar_does_without_the_figures_it_lacks(step):
    file = _Terminal()
    with ProgressBar(global_step=step, num_updates=2, file=file) as bar:
        step.assign(2)
        bar({})
    assert " 2/2 " in file.getvalue()
    assert "loss" not in file.getvalue()


def test_bar_is_quiet_where_nobody_watches(step, capsys):
    file = io.StringIO()
    stdout = sys.stdout
    with ProgressBar(global_step=step, num_updates=2, file=file) as bar:
        assert sys.stdout is stdout
        step.assign(1)
        bar({"loss": 1.0})
    assert file.getvalue() == ""
    assert capsys.readouterr().err == ""


def test_bar_outside_its_context_does_nothing(step):
    bar = ProgressBar(global_step=step, num_updates=2, enabled=True)
    bar({"loss": 1.0})


def test_prints_go_above_the_bar_and_arrive_whole(step, capsys):
    stdout = sys.stdout
    with ProgressBar(global_step=step, num_updates=2, file=_Terminal()) as bar:
        print("train | step: 1")
        print("two\nlines")
        step.assign(1)
        bar({})
        print("no newline", end="")
    assert sys.stdout is stdout
    captured = capsys.readouterr()
    assert captured.out == "train | step: 1\ntwo\nlines\nno newline\n"


def test_stdout_comes_back_after_an_error(capsys):
    stdout = sys.stdout
    with pytest.raises(KeyError), progress.stdout_above_bar():
        print("before")
        raise KeyError
    assert sys.stdout is stdout
    assert capsys.readouterr().out == "before\n"
