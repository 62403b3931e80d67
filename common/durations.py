"""Writes a duration as a person reads it."""

from __future__ import annotations


def duration(secs: float) -> str:
    """Returns a time in its most readable unit: 45 s, 3 min, 2.5 h, 10.8 days."""
    if secs < 90:
        return f"{secs:.0f} s"
    if secs < 90 * 60:
        return f"{secs / 60:.0f} min"
    if secs < 36 * 3600:
        return f"{secs / 3600:.1f} h"
    return f"{secs / 86400:.1f} days"
