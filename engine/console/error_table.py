"""Formats error rates as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = ("set", "utterances", "words", "WER %", "CER %", "substituted", "deleted", "inserted")


def error_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table with a row for each evaluation set.

    Args:
        metrics: {set: result of `TranscriptionScore.summary`}.
    """
    rows = [
        (
            name,
            str(int(values["num_utterances"])),
            str(int(values["num_words"])),
            f"{100 * values['wer']:.2f}",
            f"{100 * values['cer']:.2f}",
            str(int(values["substitutions"])),
            str(int(values["deletions"])),
            str(int(values["insertions"])),
        )
        for name, values in metrics.items()
    ]
    widths = [max(len(row[i]) for row in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]

    def line(row: tuple[str, ...]) -> str:
        first, *others = row
        return "  ".join([first.ljust(widths[0]), *(x.rjust(w) for x, w in zip(others, widths[1:], strict=True))])

    return "\n".join([line(_COLUMNS), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)])
