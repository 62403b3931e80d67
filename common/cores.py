"""Counts the processor cores that this process may use."""

from __future__ import annotations

import math
import os

# The limit of a container in control group v2: microseconds of processor time per period, or "max".
_QUOTA_FILE = "/sys/fs/cgroup/cpu.max"


def count_cores(*, quota_file: str = _QUOTA_FILE) -> int:
    """Returns the number of cores that this process may use, at least 1.

    Args:
        quota_file: File with the container's limit, "QUOTA PERIOD"; it need not exist.
    """
    # sched_getaffinity respects taskset and the cpuset of a container; only Linux has it.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota_file, encoding="ascii") as file:
            quota, period = map(int, file.read().split())
    except (OSError, ValueError):  # there is no limit, or none that this function understands
        return cores
    return max(1, min(cores, math.ceil(quota / max(period, 1)))) if quota > 0 else cores
