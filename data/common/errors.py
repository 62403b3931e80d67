"""The error of bad input: one line for the person who gave it, never a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used as given.

    The message is one line that says what is wrong, where, and what to do about it. The command
    lines print it to stderr and end with status 2.

    Attributes:
        code: the kind of fault, for who counts them; "" where nobody does.
    """

    def __init__(self, message: str, *, code: str = ""):
        super().__init__(message)
        self.code = code
