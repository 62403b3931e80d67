"""Logs the progress of training: lines by count and by time, a forecast, and a bar on a terminal."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import tensorflow as tf
import tqdm
from absl import logging
from orbit import controller

from engine.common.progress import is_terminal
from engine.console import lines
from engine.console.error_table import error_table

# Shortest time between two lines, and longest time without one.
MIN_SECS, MAX_SECS = 10.0, 25.0
_RATE_SECS = 300.0  # period over which the speed is averaged
_FORECAST_UPDATES = 3  # number of timed updates before the forecast


class TrainingLog:
    """Logs a line for a training loop, and one for every half minute in which no loop ends.

    It is a context manager, a train action and a hook between updates. On a terminal it draws a bar below the lines.
    """

    def __init__(
        self,
        *,
        global_step: tf.Variable,
        num_updates: int,
        eval_every: int = 0,
        peek: Callable[[], Mapping[str, float]] = dict,
        file: TextIO | None = None,
        min_secs: float = MIN_SECS,
        max_secs: float = MAX_SECS,
    ) -> None:
        """Logs nothing before the context is entered.

        Args:
            global_step: Number of updates done.
            num_updates: Number of updates of the run.
            eval_every: Number of updates between evaluations, whose time the forecast includes; 0 = none.
            peek: Returns the metrics of the current loop so far; called for each line by time.
            file: Stream for the bar; None = stderr.
            min_secs: Shortest time between two lines by count, in seconds.
            max_secs: Longest time without a line, in seconds.
        """
        self._global_step = global_step
        self._num_updates = num_updates
        self._eval_every = eval_every
        self._peek = peek
        self._file = file
        self._min_secs = min_secs
        self._max_secs = max_secs
        self._bar: tqdm.tqdm | None = None
        self._ended = threading.Event()
        self._last_line = self._last_update_line = self._start = time.monotonic()
        self._step = 0  # known to the thread that watches for silence; reading the variable would wait for a device
        self._first_step = 0
        self._last_read = 0.0
        self._is_started = False
        self._is_paused = False
        self._paused_at = self._paused_secs = 0.0
        self._num_pauses = 0
        self._has_forecast = False
        self._marks: deque[tuple[float, int]] = deque()  # (seconds of training, step)

    def __enter__(self) -> TrainingLog:
        file = sys.stderr if self._file is None else self._file
        is_watched = is_terminal(file)
        self._step = self._first_step = int(self._global_step.numpy())
        self._bar = tqdm.tqdm(
            total=self._num_updates,
            initial=self._step,
            unit="update",
            file=file if is_watched else io.StringIO(),
            disable=not is_watched,
            dynamic_ncols=True,
            leave=False,
        )
        self._last_line = self._last_update_line = self._start = time.monotonic()
        self._ended.clear()
        logging.get_absl_handler().addFilter(self._note_line)
        threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        logging.get_absl_handler().removeFilter(self._note_line)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def after_update(self) -> None:
        """Counts an update within a loop; logs the first one and the first one after a long silence."""
        # At most once per second, because reading the step waits for the device.
        if self._is_started and time.monotonic() - self._last_read < 1.0:
            return
        self._advance()
        if not self._is_started:
            self._is_started = True
            self._last_update_line = time.monotonic()
            self._log(f"first update after {lines.duration(time.monotonic() - self._start)}; it included compilation")
        # Not since any line: one that breaks the silence within an update has neither loss nor time left.
        elif time.monotonic() - self._last_update_line >= self._max_secs:
            self._log_update(self._peek())
        self._forecast()

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Logs the metrics of a training loop, unless the previous line is only seconds old."""
        self._advance()
        is_edge = not self._is_started or self._step >= self._num_updates
        self._is_started = True
        if is_edge or time.monotonic() - self._last_line >= self._min_secs:
            self._log_update(metrics)
        self._forecast()
        self._is_paused, self._paused_at = True, time.monotonic()

    def resume(self, output: Mapping[str, Any] | None = None) -> None:
        """Excludes the time since the last loop ended, that of an evaluation, from the speed; an eval action."""
        del output
        if self._is_paused:
            self._paused_secs += time.monotonic() - self._paused_at
            self._num_pauses += 1
        self._is_paused = False

    def log_evaluation(self, output: Mapping[str, Mapping[str, Any]]) -> None:
        """Logs the error rates of an evaluation, except of the last one, which run.py prints; an eval action."""
        if self._step < self._num_updates:
            self._log(f"evaluation at update {self._step:,}:\n{error_table(output)}")

    def _advance(self) -> None:
        self._is_paused = False  # where no evaluation came in between
        self._step, self._last_read = int(self._global_step.numpy()), time.monotonic()
        now = time.monotonic() - self._start - self._paused_secs
        self._marks.append((now, self._step))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_SECS:
            self._marks.popleft()
        if self._bar is not None:
            self._bar.update(self._step - self._bar.n)

    def secs_per_update(self) -> float | None:
        """Returns the duration of an update without compilation and evaluations; None before two were timed."""
        if len(self._marks) < 2 or self._marks[-1][1] == self._marks[0][1]:
            return None
        return (self._marks[-1][0] - self._marks[0][0]) / (self._marks[-1][1] - self._marks[0][1])

    def secs_left(self) -> float | None:
        """Returns the time until the run ends, with its evaluations once one was timed."""
        secs = self.secs_per_update()
        if secs is None:
            return None
        num_left = self._num_updates - self._step
        evaluating = 0.0
        if self._eval_every and self._num_pauses:
            evaluating = num_left / self._eval_every * self._paused_secs / self._num_pauses
        return num_left * secs + evaluating

    def _log_update(self, metrics: Mapping[str, Any]) -> None:
        secs, left = self.secs_per_update(), self.secs_left()
        self._last_update_line = time.monotonic()
        self._log(lines.update_line(self._step, self._num_updates, metrics, secs_per_update=secs, secs_left=left))

    def _forecast(self) -> None:
        secs = self.secs_per_update()
        if self._has_forecast or secs is None or self._marks[-1][1] - self._marks[0][1] < _FORECAST_UPDATES:
            return
        self._has_forecast = True
        num_left = self._num_updates - self._first_step
        whole = f"{num_left:,} updates: {lines.duration(num_left * secs)} without evaluations"
        self._log(f"forecast: {lines.speed(secs)}, {whole}")

    def _log(self, line: str) -> None:
        self._last_line = time.monotonic()
        logging.info("%s", line)

    def _note_line(self, record: object) -> bool:
        """Records the time of every log line of any module; a logging filter."""
        del record
        self._last_line = time.monotonic()
        return True

    def _break_silence(self) -> None:
        """Logs from its own thread that a long update or the first compilation is still running."""
        while not self._ended.wait(min(1.0, self._max_secs / 4)):
            silent_secs = time.monotonic() - self._last_line
            if silent_secs < self._max_secs:
                continue
            so_far = lines.duration(time.monotonic() - self._start)
            if self._step == self._first_step:
                self._log(f"still preparing the first update: TensorFlow traces and compiles it, {so_far} so far")
            elif self._is_paused:
                self._log(f"after update {self._step:,}: still evaluating or saving")
            else:
                self._log(f"update {self._step + 1:,}/{self._num_updates:,} is still running")


@contextlib.contextmanager
def without_orbit_prints() -> Iterator[None]:
    """Keeps Orbit's controller from printing dicts of metrics to stdout; it still logs them, for --verbosity=1."""
    print_and_log = controller._log
    controller._log = logging.info
    try:
        yield
    finally:
        controller._log = print_and_log
