"""Formats error rates as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METRICS = ("num_utterances", "num_words", "wer", "cer", "substitutions", "deletions", "insertions")
_COLUMNS = ("set", "utterances", "words", "WER %", "CER %", "substituted", "deleted", "inserted")


def error_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table with a row for each evaluation set.

    Args:
        metrics: {set: result of `TranscriptionScore.summary`, or a line of metrics.jsonl, which may lack values}.
    """
    rows = [
        (name, *(_show(values.get(column), is_rate=column in ("wer", "cer")) for column in _METRICS))
        for name, values in metrics.items()
    ]
    widths = [max(len(row[i]) for row in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]

    def line(row: tuple[str, ...]) -> str:
        first, *others = row
        return "  ".join([first.ljust(widths[0]), *(x.rjust(w) for x, w in zip(others, widths[1:], strict=True))])

    return "\n".join([line(_COLUMNS), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)])


def _show(value: Any, *, is_rate: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if is_rate else str(int(value))
