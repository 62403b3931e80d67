"""Chooses the error rate that decides: words, or characters where the texts have no spaces between words."""

from __future__ import annotations

from collections.abc import Iterable

from common.spacing import unspaced_length

METRICS = ("wer", "cer")
AUTO = "auto"


def choose_metric(name: object, references: Iterable[str]) -> str:
    """Returns "wer" or "cer".

    Args:
        name: Value of config.eval.best_metric; anything but "wer" and "cer" lets the texts decide.
        references: Normalized transcripts of the set.
    """
    if name in METRICS:
        return str(name)
    return "cer" if unspaced_length(references) else "wer"


def other_metric(metric: str) -> str:
    """Returns the error rate that decides between checkpoints with the same `metric`; "" for none."""
    return {"wer": "cer", "cer": "wer"}.get(metric, "")
