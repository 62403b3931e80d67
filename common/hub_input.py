"""Reads how a SavedModel of `python -m models.hub_export` expects its input, from a file beside saved_model.pb."""

from __future__ import annotations

import os

from common.json_files import optional_field, read_object

# Written only if the network expects recordings that are not normalized; all published SavedModels normalize.
INPUT_FILE = "hub_input.json"


def hub_normalizes(handle: str) -> bool:
    """Returns whether a SavedModel expects recordings with zero mean and unit variance.

    Args:
        handle: Folder or URL of the SavedModel; those at URLs are assumed to normalize.

    Raises:
        MalformedFileError: If the file is damaged.
    """
    path = os.path.join(handle, INPUT_FILE)
    if "://" in handle or not os.path.isfile(path):
        return True
    return optional_field(read_object(path), "normalize_waveform", bool, path, True)
