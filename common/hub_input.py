"""Reads what a SavedModel of `python -m models.hub_export` says about its input, from a file beside saved_model.pb."""

from __future__ import annotations

import os

from common.json_files import optional_field, read_object

# Only where the network hears recordings as they are: every published SavedModel hears them normalized.
INPUT_FILE = "hub_input.json"


def hub_normalizes(handle: str) -> bool:
    """Returns whether a SavedModel hears recordings with zero mean and unit variance.

    Args:
        handle: its folder; a URL says nothing, and so yes.

    Raises:
        MalformedFileError: the file is damaged.
    """
    path = os.path.join(handle, INPUT_FILE)
    if "://" in handle or not os.path.isfile(path):
        return True
    return optional_field(read_object(path), "normalize_waveform", bool, path, True)
