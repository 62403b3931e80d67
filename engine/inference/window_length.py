"""Chooses how long the windows are in which a recognizer reads long recordings."""

from __future__ import annotations

import dataclasses
import math

from absl import logging

from common import storage
from common.json_files import optional_field
from engine.config.row_length import find_row_secs
from engine.inference.exported import EXPORT_FILE, read_export_fields

LONGEST_SECS = 30.0
SHORTEST_SECS = 1.0  # as --window_secs
WINDOW_FIELD = "window_secs"  # of export.json
# Parts of a window that it shares with the next one. At the edges of windows of a few seconds much is misheard.
_OVERLAP_RATIO = 1 / 6
_SHORT_OVERLAP_RATIO = 1 / 2


@dataclasses.dataclass(frozen=True)
class WindowLength:
    """The windows of a recognizer.

    Attributes:
        secs: Length in seconds.
        overlap_secs: How far each window reaches into the next, in seconds.
        note: What to log when the first recording is cut; "" = nothing.
    """

    secs: float
    overlap_secs: float
    note: str = ""


def default_window_secs(checkpoint: str) -> float:
    """Returns the window length that suits a recognizer.

    That is 30 s, or the length of the training rows if that is shorter and training began from random weights: such a
    recognizer reads longer rows badly (docs/results/0178). It is never below 1 s.

    Args:
        checkpoint: A workdir, a checkpoint inside one, or an export. Exports of older versions do not tell: 30 s.

    Raises:
        ValueError: There is no run, or its files are damaged.
    """
    exported = read_export_fields(checkpoint) if checkpoint else None
    if exported is not None:
        path = storage.join(checkpoint, EXPORT_FILE)
        secs = optional_field(exported, WINDOW_FIELD, float, path, LONGEST_SECS)
    else:
        row_secs = find_row_secs(checkpoint)
        # Up to a tenth of a second, so that messages show the whole value.
        secs = LONGEST_SECS if row_secs is None else math.ceil(10 * min(row_secs, LONGEST_SECS)) / 10
    return min(max(secs, SHORTEST_SECS), LONGEST_SECS)


def choose_window(checkpoint: str, window_secs: float | None) -> WindowLength:
    """Returns the windows to use, and logs a warning if the one asked for is too long for the recognizer.

    Args:
        checkpoint: A workdir, a checkpoint inside one, or an export.
        window_secs: The length asked for, in seconds; None = `default_window_secs`.

    Raises:
        ValueError: There is no run, or its files are damaged.
    """
    default = default_window_secs(checkpoint)
    secs = default if window_secs is None else window_secs
    if default == LONGEST_SECS:
        return WindowLength(secs, secs * _OVERLAP_RATIO)
    if secs > default:
        logging.warning(
            "--window_secs=%g: %s was trained from random weights on rows of up to %g s, and reads longer ones badly; "
            "leave --window_secs out, or train on joined rows (data.concat_max_utterances)",
            secs,
            checkpoint,
            default,
        )
        return WindowLength(secs, secs * _OVERLAP_RATIO)
    note = (
        f"recordings are cut into windows of {secs:g} s: {checkpoint} was trained from random weights on rows of up to "
        "that length (--window_secs sets another)"
    )
    return WindowLength(secs, secs * _SHORT_OVERLAP_RATIO, note if secs == default else "")
