"""Divides the rows of a replica into microbatches, from what the memory of one device holds."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.training.loop_statistics import SAMPLE_RATE


def rows_of_replica(num_rows: int, num_replicas: int) -> int:
    """Returns the rows of each replica's share of an update; the last shares are filled up with padding rows.

    Args:
        num_rows: Rows of the update over all replicas.
        num_replicas: Number of replicas, which may be more than the rows.
    """
    return -(-num_rows // num_replicas)


def divide(num_rows: Any, num_samples: Any, *, max_rows: int, max_secs: float) -> tuple[Any, Any]:
    """Returns the number of a replica's microbatches and the rows of each; the last one is filled up.

    Args:
        num_rows: Rows of the replica, an integer or an int32 scalar.
        num_samples: Samples of each row, padding included, an integer or an int32 scalar; used with `max_secs`.
        max_rows: Most rows of a microbatch; 0 = all.
        max_secs: Most audio of a microbatch, padding included, in place of `max_rows`. One row always fits.

    Returns:
        (count, size); integers if they follow from integers alone, else int32 scalars.
    """
    if max_secs:
        fitting = int(max_secs * SAMPLE_RATE) // num_samples
        max_rows = tf.maximum(fitting, 1) if tf.is_tensor(fitting) else max(fitting, 1)
    elif not max_rows:
        return 1, num_rows
    # Floor division rounds towards minus infinity, so this rounds up, in Python and in a graph.
    count = -(-num_rows // max_rows)
    return count, -(-num_rows // count)
