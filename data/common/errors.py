"""Defines the error for bad input, which a user sees as one line instead of a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used.

    The message is one line that says what is wrong, where, and what to do about it. Commands print it to stderr and
    exit with status 2.

    Attributes:
        code: Machine-readable fault type such as "missing_audio"; "" if unclassified.
    """

    def __init__(self, message: str, *, code: str = ""):
        super().__init__(message)
        self.code = code
