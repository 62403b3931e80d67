"""Progress as a tqdm bar with rate and time left, or as lines in the log where there is no terminal."""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

import tqdm
from absl import logging

LINE_SECS = 20.0


def progress_bar(*, total: int, description: str, unit: str, initial: int = 0, quiet: bool = False) -> tqdm.tqdm:
    """Returns a bar on standard error; where that is no terminal, a line in the log every `LINE_SECS` instead.

    Args:
        total: Steps in all.
        description: What is going on.
        unit: Name of a step.
        initial: Steps already done, by an earlier process.
        quiet: Whether to draw nothing, whoever watches.
    """
    bar = tqdm.tqdm if is_terminal(sys.stderr) else _LoggedProgress
    return bar(
        total=total, desc=description, unit=unit, initial=initial, disable=quiet, dynamic_ncols=True, leave=False
    )


def is_terminal(file: TextIO | None) -> bool:
    """Returns whether somebody watches; nobody does where the stream was closed before the program began."""
    return file is not None and file.isatty()


class _LoggedProgress(tqdm.tqdm):
    """A bar whose drawing is a line in the log, and nothing at its begin and its end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["file"] = io.StringIO()  # nothing is ever drawn; stderr may be closed
        super().__init__(*args, **kwargs, mininterval=LINE_SECS, maxinterval=LINE_SECS, miniters=1)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Logs how far it is, with rate and time left, in place of drawing."""
        # An empty message is how a bar is wiped at its end.
        if msg == "" or not 0 < self.n < self.total:
            return
        state = self.format_dict
        rate = self.n / max(state["elapsed"], 1e-9)
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
