"""Which rows of a batch run together, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# A CPU computes eight rows of one length hardly faster, second for second, than one row (docs/results/0047).
_CPU_PADDING_SHARE = 0.1


def default_padding_share() -> float:
    """Returns the share of padding up to which a batch is worth it here: accelerators take it whole."""
    accelerators = [*tf.config.list_logical_devices("GPU"), *tf.config.list_logical_devices("TPU")]
    return 1.0 if accelerators else _CPU_PADDING_SHARE


def group_by_length(lengths: Sequence[int], *, max_padding_share: float) -> list[list[int]]:
    """Returns the rows, longest first, in groups whose padding is at most a share of what the group computes.

    Args:
        lengths: Of the rows; a group is padded to its longest.
        max_padding_share: 0 puts only rows of the same length together, 1 all.
    """
    groups: list[list[int]] = []
    longest = total = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        size = len(groups[-1]) + 1 if groups else 0
        if not groups or longest * size - total - lengths[row] > max_padding_share * longest * size:
            groups.append([])
            longest, total = lengths[row], 0
        groups[-1].append(row)
        total += lengths[row]
    return groups
