"""How a run ends before its last update: by a signal, or because an action says so."""

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

# Before there is anything to save, the main thread may still be inside a long call of a library.
_AT_ONCE_SECS = 3.0
# What is left of the grace period for the process itself to go away.
_MARGIN_SECS = 3.0
# A note may hang where its disk does.
_NOTE_SECS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopTraining(Exception):  # noqa: N818 - it reports a wish, not an error
    """Raised out of the controller's loop to end training in good order."""


class StopOnSignal:
    """Turns SIGTERM, SIGINT and SIGHUP into a stop in good order, at whatever moment they come.

    A context manager that installs the handlers (main thread only) and puts the old ones back:

        with StopOnSignal() as stop:
            try:
                ...  # here a signal ends the process at once, by SystemExit: there is nothing to save
                stop.defer()
                ...  # from here on it is only remembered; long work calls stop() where it can end
            except StopTraining:
                controller.save_checkpoint()
        sys.exit(stop.exit_status)

    A second signal finds the old handlers again: normally it ends the process at once. SIGHUP never does: a terminal
    that closes sends it twice. A SIGHUP that nohup made ignored stays ignored.

    Whatever the main thread does, and be it a call of C++ that no handler can interrupt, the process is gone
    `within_secs` after the signal: a thread of its own sees to that. When no more is left of that time than a save
    takes, and the main thread has not come, the thread has `rescue` called. Files are written so that the end costs no
    more than the work since the last checkpoint.

    Attributes:
        signal_number: The first signal received, or None.
        within_secs: Time from the signal to the end of the process; 0 = as long as it takes.
        rescue: Called in a thread of its own, to save what can be saved without the main thread; None = nothing can.
        rescue_secs: How long that may take.
        note: Called in a thread of its own, with what happened, when a signal has come after `defer` and when the
            process has to leave; None = nobody wants to know.
    """

    def __init__(
        self,
        *,
        within_secs: float = 30.0,
        signals: Sequence[signal.Signals] = _SIGNALS,
        watch_to_the_end: bool = False,
    ) -> None:
        """Keeps its arguments; nothing is installed yet.

        Args:
            within_secs: See the attribute.
            signals: What to catch.
            watch_to_the_end: Whether, once a signal has come, the time limit holds beyond the context, and the process
                leaves without taking the interpreter apart: TensorFlow's threads may still be in Python code then (a
                dataset being read), and would crash in an interpreter that is half gone.
        """
        self.signal_number: int | None = None
        self.within_secs = within_secs
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
        """Whether a signal has come; for long work that can end early."""
        return self.signal_number is not None

    @property
    def exit_status(self) -> int:
        """Status for the process to end with: 143 after SIGTERM, 130 after SIGINT, 129 after SIGHUP, 0 without."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    def defer(
        self,
        *,
        plan: str = "stopping after this update or evaluation batch, then saving",
        at_stake: str = "the updates since the last checkpoint are lost",
    ) -> None:
        """From now on there is something to save: a signal no longer raises SystemExit, but waits for `self()`.

        Args:
            plan: What is said when a signal comes.
            at_stake: What is said where the time does not suffice.
        """
        self._is_deferred = True
        self._plan, self._at_stake = plan, at_stake

    def __enter__(self) -> StopOnSignal:
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, end == self._pipe[0])
        # Python's handlers wait for the main thread to come back from C++; this pipe does not.
        self._old_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if self._watch_to_the_end:
            # Registered before TensorFlow is imported, so called after everything that it wants to do at the end.
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
            # Broken: the thread has just read a signal's number, seen that all is over, and closed its end.
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
            _say(f"{name}: stopped; nothing was to be saved")
            raise SystemExit(self.exit_status)

    def _watch(self, pipe: int) -> None:
        """Ends the process if it has not ended in time; in a thread of its own."""
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
        # Most updates are over in a moment: then a save from beside would only keep the main thread's waiting.
        moment = max(start + limit - self.rescue_secs(), start + min(_AT_ONCE_SECS, limit / 4))
        if self.rescue is not None and not self._finishes_by(moment, pipe):
            threading.Thread(target=self._rescue, name="rescue", daemon=True).start()
        if not self._finishes_by(start + limit, pipe):
            what = self._at_stake if self._is_deferred else "nothing was to be saved"
            _say(f"{name}: not done after {limit:g} s, leaving now; {what}")
            if self._is_deferred:
                self._write_note(f"{name} (not done after {limit:g} s)")
            os._exit(128 + number)

    def _finishes_by(self, moment: float, pipe: int) -> bool:
        """Waits until all is over, or the moment has come; ends the process after a second Ctrl-C."""
        while not self._finished.is_set():
            left = moment - time.monotonic()
            if left <= 0:
                return False
            if not select.select([pipe], [], [], left)[0] or os.read(pipe, 1)[0] != signal.SIGINT:
                continue
            # KeyboardInterrupt, for which the main thread must first come back from C++.
            if not self._finished.wait(_AT_ONCE_SECS):
                _say("SIGINT once more: leaving now")
                os._exit(self.exit_status or 128 + signal.SIGINT)
        return True

    def _rescue(self) -> None:
        """Calls `rescue`; nothing that goes wrong there may keep the process from its end."""
        rescue = self.rescue
        try:
            if rescue is not None:
                rescue()
        except Exception as error:
            _say(f"the save beside the update under way failed: {' '.join(str(error).split())}")

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
        """Ends the process after a signal; the last function that the interpreter calls at its end."""
        if self.requested:
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.exit_status)

    def _restore_handlers(self) -> None:
        while self._old_handlers:
            number, handler = self._old_handlers.popitem()
            # None: installed by other code than Python's; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _say(line: str) -> None:
    """Writes a line to stderr; not with print, which fails when it interrupts itself."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode("ascii", "replace"))
