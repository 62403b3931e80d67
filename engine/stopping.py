"""How a run ends before its last update: by a signal, or because an action says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any


class StopTraining(Exception):  # noqa: N818 - it reports a wish, not an error
    """Raised out of the controller's loop to end training in good order."""


class StopOnSignal:
    """Turns SIGTERM and SIGINT into a clean stop after the running train loop or evaluation.

    A context manager that installs the handlers (main thread only) and puts the old ones back, and
    an action for training and evaluation:

        with StopOnSignal() as stop:
            try:
                orbit.Controller(..., train_actions=[..., stop], eval_actions=[..., stop]).train(n)
            except StopTraining:
                controller.save_checkpoint()
        sys.exit(stop.exit_status)

    It should be the last action, so that the loop's figures are written. A second signal finds the
    old handlers again: normally it ends the process at once.

    Attributes:
        signal_number: The first signal received, or None.
    """

    def __init__(
        self, *, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    ) -> None:
        """Keeps the signals to catch."""
        self.signal_number: int | None = None
        self._signals = tuple(signals)
        self._old_handlers: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come; for long work that can end early."""
        return self.signal_number is not None

    @property
    def exit_status(self) -> int:
        """Status for the process to end with: 143 after SIGTERM, 130 after SIGINT, 0 without."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    def __enter__(self) -> StopOnSignal:
        for number in self._signals:
            self._old_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def __call__(self, output: Mapping[str, Any] | None = None) -> None:
        """Raises StopTraining if a signal has come."""
        del output
        if self.signal_number is not None:
            name = signal.Signals(self.signal_number).name
            raise StopTraining(f"stopped by {name}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        self._restore_handlers()
        name = signal.Signals(number).name
        # Not print: it may be interrupted in the middle of another print, which fails.
        line = f"\n{name}: stopping after this loop, then saving; once more to stop at once\n"
        os.write(2, line.encode("ascii"))

    def _restore_handlers(self) -> None:
        while self._old_handlers:
            number, handler = self._old_handlers.popitem()
            # None: installed by other code than Python's; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
