"""A folder that `--mode=export` wrote, read back: its model and what it says about itself."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from common import storage
from common.json_files import MalformedFileError
from common.workdir_layout import read_object

EXPORT_FILE = "export.json"
VOCAB_FILE = "vocab.json"


class ExportedModel:
    """A folder that `export` wrote, behind the call of the live model; for inference only."""

    max_training_samples = 0

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Loads it.

        Raises:
            ValueError: It is no such folder.
        """
        try:
            self._loaded = tf.saved_model.load(os.fspath(folder))
            self._logits, self._output_lengths = self._loaded.logits, self._loaded.output_lengths
        except (tf.errors.OpError, OSError, AttributeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{folder}: not a recognizer that --mode=export wrote ({reason}); export it again"
            ) from error

    @property
    def signature(self) -> Any:
        """What TensorFlow Serving runs: (waveform, lengths) -> tensors by name."""
        return self._loaded.signatures["serving_default"]

    def __call__(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, training: bool = False, random: Any = None
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V] of normalized waveforms."""
        if training:
            raise ValueError("an exported model does not train; train from the workdir it came from")
        return self._logits(waveform, waveform_lengths)

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B], the valid frames of the logits."""
        return self._output_lengths(waveform_lengths)


def read_export_fields(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the export.json of a folder, None if it is not an exported recognizer.

    Raises:
        ValueError: It is damaged.
    """
    path = storage.join(folder, EXPORT_FILE)
    if not storage.is_file(path) or not storage.is_file(storage.join(folder, "saved_model.pb")):
        return None
    try:
        return read_object(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; export the model again") from error
