"""Faults of single utterances of a corpus, and the callbacks that receive them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from data.common.errors import InputError


class Fault(NamedTuple):
    """A fault of some utterances of a corpus; the others can be used without them.

    Attributes:
        code: missing_audio, missing_transcript, empty_audio, unreadable_audio, wrong_rate, duplicate_id, bad_segment,
            bad_record or damaged_shard.
        message: One line about all of them, for `InputError`.
        details: Utterance id (or file, or file:line if there is no id) -> what is wrong with it.
        corpus: Name of the training corpus, "train" for config.data.train; "" for an evaluation set.
    """

    code: str
    message: str
    details: dict[str, str]
    corpus: str = ""


Report = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """Raises every fault as an InputError; the `Report` that tolerates none."""
    raise InputError(fault.message, code=fault.code)
