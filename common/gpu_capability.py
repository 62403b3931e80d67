"""Tells whether the GPUs can run kernels that are written in Triton."""

from __future__ import annotations

import tensorflow as tf

_LEAST_CAPABILITY = (8, 0)  # the oldest that Triton multiplies matrices of bfloat16 on


def gpus_run_triton() -> bool:
    """Returns whether there are GPUs, all from NVIDIA and of compute capability 8.0 or above."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    # GPUs of other makers have no compute capability.
    return bool(gpus) and all(each.get("compute_capability", (0, 0)) >= _LEAST_CAPABILITY for each in details)
