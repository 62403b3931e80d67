"""Configures readable log lines: no prefixes, no library internals, printed above a progress bar."""

from __future__ import annotations

import logging
import os
import sys

import tqdm
from absl import logging as absl_logging

_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("tensorflow", "orbit", "tf_keras", "keras", "tensorflow_hub"))


def configure_logging() -> None:
    """Sends this project's log lines, and only errors of libraries, to stderr without prefixes.

    With --verbosity=1 nothing is left out and every line has its time and source location.
    """
    if absl_logging.get_verbosity() >= absl_logging.DEBUG:
        return
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(_is_for_people)
    handler.python_handler.setStream(_AboveBars())
    # TensorFlow's own handler would print its lines twice.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


class _PlainFormatter(logging.Formatter):
    """Formats a record as its message, preceded by its level if that is above INFO."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


def _is_for_people(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not any(part in record.pathname for part in _LIBRARIES)


class _AboveBars:
    """Writes lines to stderr above the progress bars.

    It looks up stderr at each write, because tests and programs that capture output replace it.
    """

    def write(self, text: str) -> int:
        if text.strip("\n") and sys.stderr is not None:
            tqdm.tqdm.write(text.rstrip("\n"), file=sys.stderr)
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def close(self) -> None:
        """Leaves stderr open, although logging closes its streams at exit."""
