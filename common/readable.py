"""Formats numbers, durations, texts and errors for people."""

from __future__ import annotations


def rounded(value: float) -> str:
    """Returns three significant digits without an exponent where a person would write none: 12.4, 0.031, 48,200."""
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    if 1e3 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):,.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if exponent else mantissa


def duration(secs: float) -> str:
    """Returns a time in its most readable unit: 45 s, 3 min, 2.5 h, 10.8 days."""
    if secs < 90:
        return f"{secs:.0f} s"
    if secs < 90 * 60:
        return f"{secs / 60:.0f} min"
    if secs < 36 * 3600:
        return f"{secs / 3600:.1f} h"
    return f"{secs / 86400:.1f} days"


def shorten(text: str, max_characters: int) -> str:
    """Returns a text, or its beginning and an ellipsis if it is longer."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


def describe_error(error: object, max_characters: int | None = None) -> str:
    """Returns the text of an error without line breaks, or the name of its type if it has none."""
    return " ".join(str(error).split())[:max_characters] or type(error).__name__
