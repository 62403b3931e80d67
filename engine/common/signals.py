"""Ends a run before its last update, after a signal or because an action stops it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from common.readable import describe_error

# Grace period if nothing is to be saved: the main thread may be inside a long library call.
_AT_ONCE_SECS = 3.0
# Part of the grace period that is reserved for the exit of the process.
_MARGIN_SECS = 3.0
# Longest time for a note, whose disk may hang.
_NOTE_SECS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopTraining(Exception):  # noqa: N818 - not an error
    """Ends the controller's loop so that the run can save and exit."""


class StopOnSignal:
    """Turns SIGTERM, SIGINT and SIGHUP into an orderly stop at any time.

    A context manager that installs the handlers (main thread only) and restores the old ones:

        with StopOnSignal() as stop:
            try:
                ...  # nothing to save yet: a signal ends the process at once, by SystemExit
                stop.defer()
                ...  # a signal is only recorded; long work calls stop() where it can end
            except StopTraining:
                controller.save_checkpoint()
        sys.exit(stop.exit_status)

    A second signal finds the old handlers, which usually end the process at once. A second SIGHUP does not: a closing
    terminal sends it twice. A SIGHUP that nohup ignores stays ignored.

    A separate thread ends the process `within_secs` after the signal, even if the main thread is inside C++ code that
    no handler can interrupt. If the main thread has not responded when only the time for a save is left, the thread
    calls `rescue`. At most the work since the last checkpoint is lost.

    Attributes:
        signal_number: The first signal received, or None.
        within_secs: Time from the signal to the end of the process, in seconds; 0 = no limit.
        rescue: Saves what can be saved without the main thread, in a separate thread; None = nothing.
        rescue_secs: Returns the time that `rescue` may take, in seconds.
        at_once: What is said of the work when a signal ends the process at once.
        note: Called in a separate thread with a description when a signal comes after `defer` and when the process is
            forced to exit; None = nothing is noted.
    """

    def __init__(
        self,
        *,
        within_secs: float = 30.0,
        signals: Sequence[signal.Signals] = _SIGNALS,
        watch_to_the_end: bool = False,
    ) -> None:
        """Installs nothing yet.

        Args:
            within_secs: Time from the signal to the end of the process, in seconds; 0 = no limit.
            signals: Signals to catch.
            watch_to_the_end: Whether the time limit also holds after the context, once a signal has come, and the
                process exits without finalizing the interpreter, in which TensorFlow's threads that still run Python
                code (reading a dataset) would crash.
        """
        self.signal_number: int | None = None
        self.within_secs = within_secs
        self.at_once = "nothing was to be saved"
        self.rescue: Callable[[], object] | None = None
        self.rescue_secs: Callable[[], float] = lambda: 0.0
        self.note: Callable[[str], object] | None = None
        self._signals = tuple(signals)
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._watch_to_the_end = watch_to_the_end
        self._is_deferred = False
        self._plan = self._at_stake = ""
        self._finished = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._old_wakeup = -1

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.signal_number is not None

    @property
    def exit_status(self) -> int:
        """Exit status of the process: 143 after SIGTERM, 130 after SIGINT, 129 after SIGHUP, 0 without a signal."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    def defer(
        self,
        *,
        plan: str = "stopping after this update or evaluation batch, then saving",
        at_stake: str = "the updates since the last checkpoint are lost",
    ) -> None:
        """Makes later signals wait for `self()` instead of raising SystemExit, because there is something to save.

        Args:
            plan: Message when a signal comes.
            at_stake: Message if the time runs out.
        """
        self._is_deferred = True
        self._plan, self._at_stake = plan, at_stake

    def __enter__(self) -> StopOnSignal:
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, end == self._pipe[0])
        # Python's handlers wait for the main thread to return from C++; this pipe does not.
        self._old_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if self._watch_to_the_end:
            # Registered before TensorFlow is imported, so called after TensorFlow's exit functions.
            atexit.register(self._leave)
        threading.Thread(target=self._watch, args=(self._pipe[0],), name="StopOnSignal", daemon=True).start()
        for number in self._signals:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._old_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        assert self._pipe is not None
        if not (self.requested and self._watch_to_the_end):
            self._restore_handlers()
            self._finished.set()
            # Broken if the thread has just read a signal and closed its end.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._pipe[1], b"\0")
        self._pipe = None

    def __call__(self, output: Mapping[str, Any] | None = None) -> None:
        """Raises StopTraining if a signal has come."""
        del output
        if self.signal_number is not None:
            name = signal.Signals(self.signal_number).name
            raise StopTraining(f"stopped by {name}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        hang_up = self._old_handlers.pop(signal.SIGHUP, None)
        self._restore_handlers()
        if hang_up is not None:
            self._old_handlers[signal.SIGHUP] = hang_up
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        name = signal.Signals(number).name
        if self._is_deferred:
            _say(f"{name}: {self._plan}; once more to stop at once")
        else:
            _say(f"{name}: stopped; {self.at_once}")
            raise SystemExit(self.exit_status)

    def _watch(self, pipe: int) -> None:
        """Ends the process if it has not ended in time; runs in its own thread."""
        number = 0
        while number not in self._signals:
            number = os.read(pipe, 1)[0]
            if self._finished.is_set():
                os.close(pipe)
                return
        start, name = time.monotonic(), signal.Signals(number).name
        if self._is_deferred:
            self._write_note(name)
        if not self.within_secs:
            return
        limit = max(self.within_secs - _MARGIN_SECS, 0.0) if self._is_deferred else _AT_ONCE_SECS
        # Most updates end soon; then a rescue would only delay the main thread's own save.
        moment = max(start + limit - self.rescue_secs(), start + min(_AT_ONCE_SECS, limit / 4))
        if self.rescue is not None and not self._finishes_by(moment, pipe):
            threading.Thread(target=self._rescue, name="rescue", daemon=True).start()
        if not self._finishes_by(start + limit, pipe):
            what = self._at_stake if self._is_deferred else self.at_once
            _say(f"{name}: not done after {limit:g} s, leaving now; {what}")
            if self._is_deferred:
                self._write_note(f"{name} (not done after {limit:g} s)")
            os._exit(128 + number)

    def _finishes_by(self, moment: float, pipe: int) -> bool:
        """Waits until the context has ended or a moment is reached; ends the process after a second Ctrl-C."""
        while not self._finished.is_set():
            left = moment - time.monotonic()
            if left <= 0:
                return False
            if not select.select([pipe], [], [], left)[0] or os.read(pipe, 1)[0] != signal.SIGINT:
                continue
            # The main thread raises KeyboardInterrupt once it returns from C++.
            if not self._finished.wait(_AT_ONCE_SECS):
                _say("SIGINT once more: leaving now")
                os._exit(self.exit_status or 128 + signal.SIGINT)
        return True

    def _rescue(self) -> None:
        """Calls `rescue`; its errors must not keep the process from ending."""
        rescue = self.rescue
        try:
            if rescue is not None:
                rescue()
        except Exception as error:
            _say(f"saving during the running update failed: {describe_error(error)}")

    def _write_note(self, what: str) -> None:
        if (note := self.note) is None:
            return

        def write() -> None:
            with contextlib.suppress(Exception):
                note(what)

        thread = threading.Thread(target=write, name="note", daemon=True)
        thread.start()
        thread.join(_NOTE_SECS)

    def _leave(self) -> None:
        """Ends the process after a signal; the last exit function that the interpreter calls."""
        if self.requested:
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.exit_status)

    def _restore_handlers(self) -> None:
        while self._old_handlers:
            number, handler = self._old_handlers.popitem()
            # None: not installed by Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _say(line: str) -> None:
    """Writes a line to stderr without print, which fails if a handler interrupts another print."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode("ascii", "replace"))
