"""One way to show progress: a tqdm bar with rate and time left, silent where nobody watches."""

from __future__ import annotations

import sys

import tqdm


def progress_bar(*, total: int, description: str, unit: str, initial: int = 0) -> tqdm.tqdm:
    """Returns a bar on standard error, disabled unless that is a terminal.

    Args:
        total: Steps in all.
        description: What is going on.
        unit: Name of a step.
        initial: Steps already done, by an earlier process.
    """
    return tqdm.tqdm(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
    )
