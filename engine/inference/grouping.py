"""Groups the rows of a batch by length, so that little padding is computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grouping:
    """Options of the grouping, which depend on the device.

    Attributes:
        max_padding_ratio: Largest share of padding in a group; 0 groups only rows of the same length, 1 all rows.
        max_samples: Largest number of samples in a group of several rows, including padding; 0 = no limit.
        num_at_once: Number of groups that run at the same time.
        shapes: Numbers of rows and of samples, rising in samples. A group has at most the rows of the first that is
            long enough for it, and is filled up to its shape; empty = any shape.
    """

    max_padding_ratio: float
    max_samples: int = 0
    num_at_once: int = 1
    shapes: tuple[tuple[int, int], ...] = ()

    def shape_for(self, num_samples: int) -> tuple[int, int] | None:
        """Returns the first of `shapes` that is long enough; None if there is none."""
        return next((shape for shape in self.shapes if shape[1] >= num_samples), None)


# A CPU is hardly faster per second of audio with eight rows of one length than with one, and needs eight times the
# memory (docs/results/0147). Two groups at once fill the gaps in which one keeps a single core busy (0049).
ON_CPU = Grouping(max_padding_ratio=0.1, max_samples=480_000, num_at_once=2)
# While an accelerator computes a group, the next one is padded and copied there, so a large batch is several groups: an
# H200 transcribes eight rows of 246,000 samples at a time 1.7 times as fast as 32 (docs/results/0180).
ON_ACCELERATOR = Grouping(max_padding_ratio=1.0, max_samples=2_000_000, num_at_once=2)
ON_REPLICAS = Grouping(max_padding_ratio=1.0)


def suitable_grouping() -> Grouping:
    """Returns the options for the visible devices."""
    has_accelerator = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
    return ON_ACCELERATOR if has_accelerator else ON_CPU


def in_few_shapes(grouping: Grouping, *, longest: int, num_rows: int) -> Grouping:
    """Returns a grouping in which every batch has one of four shapes, for a step that is compiled for each.

    Args:
        grouping: Says how large a group may be, and how many run at a time.
        longest: Samples of the longest row; batches are this long, or a half, a quarter or an eighth of it.
        num_rows: Rows of a batch; fewer where those would be too large for a group.
    """
    lengths = [math.ceil(longest / parts) for parts in (8, 4, 2, 1)]
    most = grouping.max_samples or math.inf
    shapes = tuple((max(1, int(min(most / length, num_rows))), length) for length in lengths)
    return Grouping(max_padding_ratio=1.0, num_at_once=grouping.num_at_once, shapes=shapes)


def group_by_length(lengths: Sequence[int], grouping: Grouping) -> list[list[int]]:
    """Returns groups of row indices, longest rows first.

    Args:
        lengths: Lengths of the rows, in samples; a group is padded to its longest row.
        grouping: Options of the grouping.
    """
    groups: list[list[int]] = []
    longest = total = most_rows = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        computed = longest * (len(groups[-1]) + 1) if groups else 0
        is_full = 0 < grouping.max_samples < computed or (groups and len(groups[-1]) == most_rows)
        if not groups or is_full or computed - total - lengths[row] > grouping.max_padding_ratio * computed:
            groups.append([])
            longest, total = lengths[row], 0
            shape = grouping.shape_for(longest)
            most_rows = shape[0] if shape else 0
            if grouping.shapes and not shape:
                most_rows = 1  # a row that is longer than every shape is alone
        groups[-1].append(row)
        total += lengths[row]
    return groups
