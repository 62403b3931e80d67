"""Faults of single utterances of a corpus, and the callbacks that receive them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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


def remember(report: Report) -> tuple[list[Fault], Report]:
    """Returns a list, and a `Report` that adds each fault to it before it tells the given one."""
    faults: list[Fault] = []

    def hear(fault: Fault) -> None:
        faults.append(fault)
        report(fault)

    return faults, hear


def nothing_left(where: str | os.PathLike[str], faults: Sequence[Fault]) -> InputError:
    """Returns the error for a corpus all of whose utterances have faults, which names the first."""
    return InputError(f"no utterance of {where} can be used: {faults[0].message}", code=faults[0].code)
