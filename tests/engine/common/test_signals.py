"""A signal ends training in good order, with the right status, and gives the handlers back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orbit
import pytest
import tensorflow as tf

from engine.actions.writers import MetricsWriter
from engine.common import files
from engine.common.signals import StopOnSignal, StopTraining


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


class _Trainer(orbit.StandardTrainer):
    """Counts updates and, after one of them, gets a signal."""

    def __init__(self, step, signal_after, number):
        dataset = tf.data.Dataset.from_tensors(0).repeat()
        options = orbit.StandardTrainerOptions(use_tf_while_loop=False, use_tf_function=False)
        super().__init__(dataset, options)
        self._step = step
        self._signal_after = signal_after
        self._number = number

    def train_step(self, iterator):
        next(iterator)
        self._step.assign_add(1)
        if int(self._step) == self._signal_after:
            os.kill(os.getpid(), self._number)

    def train_loop_end(self):
        return {"loss": float(self._step.numpy())}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_stops_after_the_loop_with_its_figures_written(tmp_path, step, number, status, capfd):
    path = tmp_path / "metrics.jsonl"
    before = signal.getsignal(number)
    with StopOnSignal() as stop:
        stop.defer()
        assert not stop.requested
        assert stop.exit_status == 0
        controller = orbit.Controller(
            global_step=step,
            trainer=_Trainer(step, signal_after=4, number=number),
            steps_per_loop=3,
            train_actions=[MetricsWriter(path=path, global_step=step), stop],
        )
        with pytest.raises(StopTraining, match=f"stopped by {signal.Signals(number).name}"):
            controller.train(12)
        assert stop.requested
        assert stop.exit_status == status
    assert int(step.numpy()) == 6
    assert [record["step"] for record in files.read_jsonl(path)] == [3, 6]
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: stopping after this update" in capfd.readouterr().err


def test_without_a_signal_nothing_happens_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopOnSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        stop({"loss": 1.0})
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_hang_up_that_nohup_made_ignored_stays_ignored():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnSignal() as stop:
            stop.defer()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_closes_says_so_twice_and_that_is_no_second_signal(first):
    before = signal.getsignal(signal.SIGHUP)
    with StopOnSignal() as stop:
        stop.defer()
        os.kill(os.getpid(), first)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.exit_status == 128 + first
    assert signal.getsignal(signal.SIGHUP) is before


def test_what_can_be_saved_without_the_main_thread_is_saved_while_there_is_just_time_for_it():
    """The main thread is busy here from the signal to the end of the time."""
    done = []
    start = time.monotonic()
    with StopOnSignal(within_secs=3.0 + 1.2) as stop:
        stop.rescue = lambda: done.append(("rescue", time.monotonic() - start))
        stop.rescue_secs = lambda: 0.7
        stop.note = lambda what: done.append((what, time.monotonic() - start))
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.9)
    assert [what for what, _ in done] == ["SIGTERM", "rescue"]
    assert done[0][1] < 0.4 < done[1][1]


def test_a_run_that_ends_in_time_has_nothing_rescued():
    done = []
    with StopOnSignal(within_secs=3.0 + 0.4) as stop:
        stop.rescue = lambda: done.append("rescue")
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.6)
    assert done == []


def test_second_signal_meets_the_old_handler():
    received = []
    old = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    # A shell without job control starts the tests with SIGINT ignored.
    old_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopOnSignal() as stop:
            stop.defer()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            assert received == []
            # Any of the signals: the user may press Ctrl-C when SIGTERM takes too long.
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == [signal.SIGTERM]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_status == 143
    finally:
        signal.signal(signal.SIGTERM, old)
        signal.signal(signal.SIGINT, old_interrupt)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_before_there_is_anything_to_save_a_signal_ends_the_process_at_once(number, status, capfd):
    with StopOnSignal() as stop, pytest.raises(SystemExit) as ending:
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert ending.value.code == stop.exit_status == status
    assert f"{signal.Signals(number).name}: stopped; nothing was to be saved" in capfd.readouterr().err


# Both write what they are called with, and the first of them fails.
NOTES = """
import hashlib, os, sys
from engine.common.signals import StopOnSignal
def rescue():
    os.write(1, b"rescue\\n")
    raise OSError("no room")
with StopOnSignal(within_secs=4.0, watch_to_the_end=True) as stop:
    stop.note = lambda what: os.write(1, f"{what}\\n".encode())
    stop.rescue, stop.rescue_secs = rescue, lambda: 0.5
    stop.defer()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000_000)
"""


@pytest.mark.parametrize(
    ("signals", "status", "lines"),
    [
        ([signal.SIGTERM], 143, ["SIGTERM", "rescue", "SIGTERM (not done after 1 s)"]),
        ([signal.SIGHUP, signal.SIGHUP], 129, ["SIGHUP", "rescue", "SIGHUP (not done after 1 s)"]),
    ],
)
def test_a_process_that_has_to_leave_says_what_becomes_of_it_and_no_fault_keeps_it(signals, status, lines):
    process = subprocess.Popen(
        [sys.executable, "-c", NOTES], cwd=Path(__file__).resolve().parents[3], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert printed.splitlines() == lines
    assert "saving during the running update failed: no room" in errors and "Traceback" not in errors


# One call that comes back to Python only after a minute, as a compilation may.
STUCK = """
import hashlib, sys
from engine.common.signals import StopOnSignal
with StopOnSignal(within_secs=4.0, watch_to_the_end=True) as stop:
    if sys.argv[1] == "deferred":
        stop.defer()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000_000)
"""


@pytest.mark.parametrize(
    ("phase", "number", "said"),
    [
        ("deferred", signal.SIGTERM, b"not done after 1 s, leaving now; the updates since the last checkpoint"),
        ("deferred", signal.SIGHUP, b"not done after 1 s, leaving now; the updates since the last checkpoint"),
        ("early", signal.SIGINT, b"not done after 3 s, leaving now; nothing was to be saved"),
    ],
)
def test_a_call_that_no_handler_can_interrupt_does_not_keep_the_process(phase, number, said):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, phase],
        cwd=Path(__file__).resolve().parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert time.monotonic() - start < 8
    assert said in errors


# What TensorFlow's threads may call into when the process ends; here a module's global says whether it was taken apart.
ENDING = """
import atexit, os, signal, sys
from engine.common.signals import StopOnSignal

class Global:
    def __del__(self):
        os.write(1, b"taken apart\\n")

part = Global()
with StopOnSignal(watch_to_the_end=True) as stop:
    atexit.register(lambda: print("a library's last words"))
    stop.defer()
    if sys.argv[1] == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(stop.exit_status or 3)
"""


@pytest.mark.parametrize(
    ("how", "status", "printed"),
    [
        ("signal", 143, "a library's last words\n"),
        ("straight", 3, "a library's last words\ntaken apart\n"),
    ],
)
def test_after_a_signal_the_interpreter_is_not_taken_apart_under_running_threads(how, status, printed):
    done = subprocess.run(
        [sys.executable, "-c", ENDING, how],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == printed


TWICE = """
import hashlib
from engine.common.signals import StopOnSignal
with StopOnSignal(within_secs=60.0, watch_to_the_end=True) as stop:
    stop.defer()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000_000)
"""


def test_ctrl_c_twice_ends_a_call_that_no_handler_can_interrupt():
    process = subprocess.Popen(
        [sys.executable, "-c", TWICE], cwd=Path(__file__).resolve().parents[3], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    for _ in range(2):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - start < 10
    assert b"SIGINT once more: leaving now" in errors
