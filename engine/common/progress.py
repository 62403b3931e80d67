"""Shows progress as a tqdm bar, or as log lines if there is no terminal."""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

import tqdm
from absl import logging

LINE_SECS = 20.0


def progress_bar(*, total: int, description: str, unit: str, initial: int = 0, quiet: bool = False) -> tqdm.tqdm:
    """Returns a bar on standard error; if that is no terminal, it logs a line every `LINE_SECS` instead.

    Args:
        total: Number of steps.
        description: Description of the work.
        unit: Name of a step.
        initial: Number of steps done by an earlier process.
        quiet: Whether to show nothing.
    """
    bar = tqdm.tqdm if is_terminal(sys.stderr) else _LoggedProgress
    return bar(
        total=total, desc=description, unit=unit, initial=initial, disable=quiet, dynamic_ncols=True, leave=False
    )


def is_terminal(file: TextIO | None) -> bool:
    """Returns whether a stream is a terminal; None, a stream closed before the program began, is not."""
    return file is not None and file.isatty()


class _LoggedProgress(tqdm.tqdm):
    """Logs lines in place of drawing a bar; nothing at the begin and at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["file"] = io.StringIO()  # nothing is ever drawn; stderr may be closed
        super().__init__(*args, **kwargs, mininterval=LINE_SECS, maxinterval=LINE_SECS, miniters=1)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Logs progress, rate and remaining time in place of drawing."""
        # At its end a bar is erased with an empty message.
        if msg == "" or not self.initial < self.n < self.total:
            return
        state = self.format_dict
        # Not with the steps of an earlier process, which took none of this one's time.
        rate = (self.n - self.initial) / max(state["elapsed"], 1e-9)
        left = (self.total - self.n) / rate
        logging.info(
            "%s: %s/%s %s, %.3g %s/s, ETA %s",
            self.desc,
            f"{self.n:.0f}",
            f"{self.total:.0f}",
            self.unit,
            rate,
            self.unit,
            tqdm.tqdm.format_interval(left),
        )
