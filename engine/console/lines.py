"""Formats numbers and log lines for people: rounded, with units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Share of a loop's time spent waiting for data that is worth mentioning.
_ODD_INPUT_STALL = 0.2


def rounded(value: float) -> str:
    """Returns three significant digits, with an exponent only for extreme values: 12.4, 0.031, 48,200."""
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    if 1e3 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):,.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if exponent else mantissa


def duration(secs: float) -> str:
    """Returns a duration in its most readable unit: 45 s, 3 min, 2.5 h, 10.8 days."""
    if secs < 90:
        return f"{secs:.0f} s"
    if secs < 90 * 60:
        return f"{secs / 60:.0f} min"
    if secs < 36 * 3600:
        return f"{secs / 3600:.1f} h"
    return f"{secs / 86400:.1f} days"


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
    if (stall := float(metrics.get("input_stall_share", 0.0))) > _ODD_INPUT_STALL:
        found.append(f"waiting for data {100 * stall:.0f} % of the time")
    return found


def _percent(ratio: float) -> str:
    percent = 100 * ratio
    return f"{percent:.0f}" if percent >= 1 or percent == 0 else f"{percent:.2g}"
