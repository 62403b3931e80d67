"""Loads the folder that `--mode=export` writes: its model and its description."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from common import storage
from common.json_files import MalformedFileError
from common.renamed import rename_fields
from common.workdir_layout import read_object

EXPORT_FILE = "export.json"


class ExportedModel:
    """An exported model with the interface of the trained one; for inference only."""

    max_training_samples = 0

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Loads the model.

        Raises:
            ValueError: `--mode=export` did not write the folder, or it is damaged.
        """
        try:
            self._loaded = tf.saved_model.load(os.fspath(folder))
            self._logits, self._output_lengths = self._loaded.logits, self._loaded.output_lengths
        except (tf.errors.OpError, OSError, AttributeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{folder}: not a model written by --mode=export ({reason}); export it again") from error

    @property
    def signature(self) -> Any:
        """Signature for TensorFlow Serving: (waveform, lengths) -> {name: tensor}."""
        return self._loaded.signatures["serving_default"]

    def __call__(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, training: bool = False, random: Any = None
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V] of normalized waveforms."""
        if training:
            raise ValueError("an exported model cannot be trained; train in the workdir that it was exported from")
        return self._logits(waveform, waveform_lengths)

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns the number of valid frames of each row, int32 [B]."""
        return self._output_lengths(waveform_lengths)


def read_export_fields(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the content of a folder's export.json, None if the folder is not an exported model.

    Raises:
        ValueError: The file is damaged.
    """
    path = storage.join(folder, EXPORT_FILE)
    if not storage.is_file(path) or not storage.is_file(storage.join(folder, "saved_model.pb")):
        return None
    try:
        return rename_fields(read_object(path))
    except MalformedFileError as error:
        raise ValueError(f"{error}; export the model again") from error
