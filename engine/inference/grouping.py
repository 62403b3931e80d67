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
        widths: Lengths in samples, rising, to the next of which a group is padded; empty = any.
        num_rows: A group is filled up to a multiple of so many rows; 0 = not at all.
    """

    max_padding_ratio: float
    max_samples: int = 0
    num_at_once: int = 1
    widths: tuple[int, ...] = ()
    num_rows: int = 0


# A CPU is hardly faster per second of audio with eight rows of one length than with one, and needs eight times the
# memory (docs/results/0147). Two groups at once fill the gaps in which one keeps a single core busy (0049).
ON_CPU = Grouping(max_padding_ratio=0.1, max_samples=480_000, num_at_once=2)
# A batch is one group; while an accelerator computes it, the next one is padded and copied there.
ON_ACCELERATOR = Grouping(max_padding_ratio=1.0, num_at_once=2)
ON_REPLICAS = Grouping(max_padding_ratio=1.0)


def suitable_grouping() -> Grouping:
    """Returns the options for the visible devices."""
    has_accelerator = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
    return ON_ACCELERATOR if has_accelerator else ON_CPU


def in_few_shapes(grouping: Grouping, *, longest: int, num_rows: int) -> Grouping:
    """Returns a grouping in which every batch has one of four shapes, for a step that is compiled for each.

    Args:
        grouping: Says how many groups run at a time.
        longest: Samples of the longest row; batches are this long, or a half, a quarter or an eighth of it.
        num_rows: Rows of a batch.
    """
    widths = tuple(math.ceil(longest / parts) for parts in (8, 4, 2, 1))
    return Grouping(max_padding_ratio=1.0, num_at_once=grouping.num_at_once, widths=widths, num_rows=num_rows)


def group_by_length(lengths: Sequence[int], grouping: Grouping) -> list[list[int]]:
    """Returns groups of row indices, longest rows first.

    Args:
        lengths: Lengths of the rows, in samples; a group is padded to its longest row.
        grouping: Options of the grouping.
    """
    groups: list[list[int]] = []
    longest = total = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        computed = longest * (len(groups[-1]) + 1) if groups else 0
        is_full = 0 < grouping.max_samples < computed
        if not groups or is_full or computed - total - lengths[row] > grouping.max_padding_ratio * computed:
            groups.append([])
            longest, total = lengths[row], 0
        groups[-1].append(row)
        total += lengths[row]
    return groups
