"""Formats numbers and log lines for people: rounded, with units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.readable import duration, rounded

# Share of a loop's time spent waiting for data above which it is worth a word.
_ODD_INPUT_STALL = 0.2


def speed(secs_per_update: float) -> str:
    """Returns updates per second, or seconds per update if that is the larger number."""
    return f"{rounded(1 / secs_per_update)} updates/s" if secs_per_update < 1 else f"{secs_per_update:.1f} s/update"


def update_line(
    step: int,
    num_updates: int,
    metrics: Mapping[str, Any],
    *,
    secs_per_update: float | None = None,
    secs_left: float | None = None,
) -> str:
    """Returns a log line about training.

    Args:
        step: Number of updates done.
        num_updates: Number of updates of the run.
        metrics: Metrics of a training loop, see `Trainer.train_loop_end`; absent ones are left out.
        secs_per_update: Duration of an update without evaluations, in seconds.
        secs_left: Time until the run ends, in seconds.
    """
    parts = [f"update {step:,}/{num_updates:,}", f"{_percent(step / num_updates)} %"]
    if "loss" in metrics:
        parts.append(f"loss {rounded(float(metrics['loss']))}")
    if "learning_rate" in metrics:
        parts.append(f"lr {rounded(float(metrics['learning_rate']))}")
    if "gradient_norm" in metrics:
        parts.append(f"grad {rounded(float(metrics['gradient_norm']))}")
    if metrics.get("audio_secs_per_sec"):
        parts.append(f"{rounded(float(metrics['audio_secs_per_sec']))} audio-s/s")
    if secs_per_update:
        parts.append(speed(secs_per_update))
    if secs_left is not None:
        parts.append(f"ETA {duration(secs_left)}")
    return "  ".join([*parts, *oddities(metrics)])


def oddities(metrics: Mapping[str, Any]) -> list[str]:
    """Returns notes on what is unusual about a training loop; empty if nothing is."""
    found = []
    if num_zeroed := int(metrics.get("num_infeasible", 0)):
        found.append(f"{num_zeroed} rows left out (more text than their frames can hold)")
    if num_bad := int(metrics.get("num_bad", 0)):
        found.append(f"{num_bad} rows unreadable")
    if num_skipped := int(metrics.get("num_skipped_updates", 0)):
        found.append(f"{num_skipped} updates skipped (loss or gradient not finite, or no row with a loss)")
    if (stall := float(metrics.get("input_stall_ratio", 0.0))) > _ODD_INPUT_STALL:
        found.append(f"waiting for data {100 * stall:.0f} % of the time")
    return found


def _percent(ratio: float) -> str:
    percent = 100 * ratio
    return f"{percent:.0f}" if percent >= 1 or percent == 0 else f"{percent:.2g}"
