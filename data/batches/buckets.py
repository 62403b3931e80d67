"""Chooses the lengths that batches are padded to (buckets), and cuts sorted rows into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.audio.decoding import SAMPLE_RATE
from data.common.errors import InputError


def choose_bucket_boundaries(
    num_samples: np.ndarray | Sequence[int], num_buckets: int, *, resolution: int = 1600
) -> tuple[int, ...]:
    """Chooses the bucket boundaries that waste the fewest padded samples.

    The result is optimal: a dynamic program over the multiples of `resolution` that rows round up to.

    Args:
        num_samples: Integers [N], samples of the rows.
        num_buckets: Largest number of boundaries; fewer are returned if more do not help.
        resolution: Number of samples that divides every boundary.

    Returns:
        Increasing boundaries; the last one holds the longest row.

    Raises:
        InputError: If there are no rows.
        ValueError: If `num_buckets` or `resolution` is below 1.
    """
    if num_buckets < 1 or resolution < 1:
        raise ValueError(f"num_buckets={num_buckets}, resolution={resolution}: both must be >= 1")
    lengths = checked_lengths(num_samples)
    values, counts = np.unique(-(-lengths // resolution), return_counts=True)
    num_values, num_buckets = len(values), min(num_buckets, len(values))
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    # cost[k, j] is the padded size of the rows of the j smallest values in exactly k buckets.
    cost = np.full((num_buckets + 1, num_values + 1), np.iinfo(np.int64).max // 4, dtype=np.int64)
    cost[0, 0] = 0
    previous = np.zeros((num_buckets + 1, num_values + 1), dtype=np.int32)
    for j in range(1, num_values + 1):
        candidates = cost[:-1, :j] + values[j - 1] * (cumulated[j] - cumulated[:j])
        previous[1:, j] = np.argmin(candidates, axis=1)
        cost[1:, j] = np.min(candidates, axis=1)
    boundaries, j = [], num_values
    for k in range(num_buckets, 0, -1):
        boundaries.append(int(values[j - 1]) * resolution)
        j = int(previous[k, j])
    return tuple(reversed(boundaries))


def rows_within(boundaries: np.ndarray, *, max_batch_samples: int, row_multiple: int) -> np.ndarray:
    """Returns the rows of a batch of each bucket such that a padded batch has at most `max_batch_samples`.

    Args:
        boundaries: [K] increasing lengths in samples that the rows of each bucket are padded to.
        max_batch_samples: Largest number of samples of a batch, padding included.
        row_multiple: Divides the number of rows, so that replicas and microbatches can share them.

    Returns:
        int64 [K], not increasing.

    Raises:
        InputError: If not even `row_multiple` of the longest rows fit.
    """
    rows = max_batch_samples // boundaries // row_multiple * row_multiple
    if rows[-1] < 1:
        raise InputError(
            f"max_batch_secs={max_batch_samples / SAMPLE_RATE:g} holds {max_batch_samples // int(boundaries[-1])} rows "
            f"of the longest bucket, {boundaries[-1] / SAMPLE_RATE:g} s, fewer than row_multiple={row_multiple}: raise "
            "it, lower row_multiple, or leave out longer utterances"
        )
    return rows


def cut_batches(row_counts: np.ndarray, bucket_rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Cuts rows that are sorted by bucket into full batches.

    A batch of bucket k takes the next `bucket_rows[k]` rows. Rows left over in a bucket go into the next larger bucket
    that has rows, so only the largest bucket can leave some.

    Args:
        row_counts: [K] rows in each bucket.
        bucket_rows: [K] rows of a batch of each bucket, not increasing.

    Returns:
        The bucket of each full batch, in the order of the rows, and the number of rows left over.
    """
    buckets, left = [], 0
    for bucket in np.flatnonzero(row_counts).tolist():
        num_full, left = divmod(left + int(row_counts[bucket]), int(bucket_rows[bucket]))
        buckets.append(np.full(num_full, bucket))
    return np.concatenate(buckets), left


def checked_lengths(num_samples: np.ndarray | Sequence[int]) -> np.ndarray:
    """Returns lengths as int64 [N]; raises InputError if there are none, or one is below 1."""
    lengths = np.array(num_samples, dtype=np.int64)
    if lengths.ndim != 1 or not lengths.size:
        raise InputError("there are no utterances to plan: check the input and its filters")
    empty = np.flatnonzero(lengths < 1)
    if empty.size:
        raise InputError(f"{empty.size} utterances are empty, first index {empty[0]}: drop them")
    return lengths


def checked_speeds(speed_factors: Sequence[float]) -> np.ndarray:
    """Returns playing speeds as float64; raises ValueError unless there are some, all positive and finite."""
    speeds = np.array(speed_factors, dtype=np.float64)
    if not speeds.size or not np.all(np.isfinite(speeds) & (speeds > 0)):
        raise ValueError(f"{speed_factors=} must be one or more positive numbers")
    return speeds
