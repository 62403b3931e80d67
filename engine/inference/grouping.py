"""Which rows of a batch run together, so that little padding is computed, and how many groups run at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grouping:
    """What suits a device.

    Attributes:
        max_padding_share: Of what a group computes; 0 puts only rows of the same length together, 1 all.
        max_samples: Most samples of a group of several rows, padding included; 0 sets no limit.
        num_at_once: Groups that run at the same time.
    """

    max_padding_share: float
    max_samples: int = 0
    num_at_once: int = 1


# A CPU computes eight rows of one length hardly faster, second for second, than one row, in eight times the memory
# (docs/results/0047). Two groups at once fill the gaps in which one has work for a single core only (0049).
ON_CPU = Grouping(max_padding_share=0.1, max_samples=480_000, num_at_once=2)
ON_ACCELERATOR = Grouping(max_padding_share=1.0)


def suitable_grouping() -> Grouping:
    """Returns what suits the devices that are visible."""
    has_accelerator = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
    return ON_ACCELERATOR if has_accelerator else ON_CPU


def group_by_length(lengths: Sequence[int], grouping: Grouping) -> list[list[int]]:
    """Returns the rows, longest first, in groups.

    Args:
        lengths: Of the rows, in samples; a group is padded to its longest.
        grouping: What a group may be.
    """
    groups: list[list[int]] = []
    longest = total = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        computed = longest * (len(groups[-1]) + 1) if groups else 0
        is_full = 0 < grouping.max_samples < computed
        if not groups or is_full or computed - total - lengths[row] > grouping.max_padding_share * computed:
            groups.append([])
            longest, total = lengths[row], 0
        groups[-1].append(row)
        total += lengths[row]
    return groups
