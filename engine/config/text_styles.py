"""Checks the fields of a config that say how texts are written, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.text_style import AUTO, STYLES, text_base
from engine.evaluation.normalizers import read_normalizers


def check_text_styles(fields: Mapping[str, Any], check: Callable[[str], None]) -> None:
    """Checks how a config writes the texts of training and of each further scoring.

    Args:
        fields: The fields of the config.
        check: Raises ValueError with what is wrong with a style.

    Raises:
        ValueError: Names the field, its value and what is wrong.
    """
    normalizers = read_normalizers(fields.get("eval", {}).get("normalizers", ()))
    styles = [("data.text_normalization", fields.get("data", {}).get("text_normalization", "none"))]
    for name, style in [*styles, *(("eval.normalizers", style) for style in normalizers.values())]:
        try:
            if name == "eval.normalizers" and text_base(style) == AUTO:
                raise ValueError(f"wanted one of {', '.join(STYLES)}")
            check(style)
        except ValueError as error:
            raise ValueError(f"{name}={style!r}: {error}") from error
