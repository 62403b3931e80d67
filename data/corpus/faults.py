"""What is wrong with single utterances of a corpus, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from data.common.errors import InputError


class Fault(NamedTuple):
    """Something wrong with some utterances of a corpus; the others can be used without them.

    Attributes:
        code: missing_audio, missing_transcript, empty_audio, unreadable_audio, duplicate_id,
            bad_segment or bad_record.
        message: one line about all of them, as `InputError` wants it.
        details: utterance id (where there is none yet: file, or file:line) -> what is wrong with it.
    """

    code: str
    message: str
    details: dict[str, str]


Report = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """The `Report` that tolerates nothing.

    Raises:
        InputError: always.
    """
    raise InputError(fault.message, code=fault.code)
