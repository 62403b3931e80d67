"""Tells the plan of samples that augmentation adds to rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowPadding:
    """Samples that rows get beside those of their utterances, such as silence at their ends.

    Attributes:
        max_samples: Most samples of a row.
        samples: Returns the samples of a row that begins with each utterance from `start` to `stop` in an epoch, called
            with (epoch, start, stop), int64 [stop - start].
    """

    max_samples: int
    samples: Callable[[int, int, int], np.ndarray]
