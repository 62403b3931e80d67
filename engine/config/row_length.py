"""Finds how long the rows were that a model from random weights was trained on: it reads longer rows badly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError, is_kind
from engine.config.recorded_run import load_run

RECORDED_FIELD = "trained_row_secs"  # of environment.json
_SAMPLE_RATE = 16_000


def row_secs_to_record(config: Mapping[str, Any], *, row_secs: float, init: str, run: str) -> float | None:
    """Returns the row length that a run records: None unless its weights go back to random ones.

    A run that starts from such a run has learned the rows of both, so the longer length counts. That this holds after
    long training on short rows has not been measured.

    Args:
        config: The config of the run.
        row_secs: Length in seconds that 95 of 100 rows of the run do not exceed.
        init: Weights to start from; "" = random ones, or a run that continues.
        run: Workdir of a run that continues, whose record stays; "" = a new run.
    """
    recorded = _read_recorded(run) if run else None
    if recorded is not None:
        return recorded
    if starts_at_random(config):
        return row_secs
    try:
        before = find_row_secs(init) if init else None
    except ValueError:  # weights of another kind than those of a run
        return None
    return None if before is None or math.isinf(before) else max(before, row_secs)


def find_row_secs(checkpoint: str) -> float | None:
    """Returns the row length that a run has recorded, or for older runs the longest that its config allows.

    Of an older run that started from another run of this project, nothing is known: the result is None.

    Args:
        checkpoint: A workdir, or a checkpoint inside one; or a converted folder.

    Returns:
        Seconds; None for weights that do not go back to random ones.

    Raises:
        ValueError: There is no run, or its config is damaged.
    """
    config, folder = load_run(checkpoint)
    recorded = _read_recorded(folder)
    if recorded is None and starts_at_random(config):
        return _longest_allowed(config["data"])
    return recorded


def starts_at_random(config: Mapping[str, Any]) -> bool:
    """Tells whether a run starts from random weights; a converted folder, which has no model.init, does not."""
    model = config["model"]
    return model.get("source", "native") == "native" and model.get("init") == ""


def _read_recorded(folder: str) -> float | None:
    try:
        value: Any = layout.read_object(storage.join(folder, layout.ENVIRONMENT_FILE)).get(RECORDED_FIELD)
    except (OSError, MalformedFileError):  # the weights can be used without this file
        return None
    return float(value) if is_kind(value, float) and value > 0 else None


def _longest_allowed(data: Mapping[str, Any]) -> float:
    """Returns the length of the longest row that the fields of config.data allow, in seconds; may be infinite."""
    secs = data.get("max_duration_secs", 0.0) or math.inf
    if data.get("concat_max_utterances", 1) > 1:
        secs = max(secs, data.get("concat_max_secs", 0.0) or math.inf)
    boundaries = [size for size in data.get("bucket_boundaries_samples", ()) if is_kind(size, int)]
    return min(secs, max(boundaries) / _SAMPLE_RATE) if boundaries else secs
