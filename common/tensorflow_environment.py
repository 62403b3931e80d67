"""Sets the environment variables that TensorFlow reads when it starts; it is not imported here."""

from __future__ import annotations

import os


def set_tensorflow_defaults(*, log_level: str = "3") -> None:
    """Sets the variables that the user has not set; call before TensorFlow is imported.

    Args:
        log_level: Messages of TensorFlow's own to leave out, 0 (none) to 3 (all but fatal ones).
    """
    # Its notes on CUDA libraries that a CPU machine lacks would bury ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", log_level)
    # TensorFlow imports the Keras that `tf.keras` would be: Keras 3, and with it scikit-learn, for nobody.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Otherwise a process takes all memory of every GPU at its start, and evaluation, transcription and a server cannot
    # run beside a training. The variable wins over what a program sets for a single device.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
