"""Tells whether GPUs are recent enough for the attention kernels of `models.ops.gpu_attention`."""

from __future__ import annotations

import tensorflow as tf

_LEAST_CAPABILITY = (8, 0)  # of GPUs that have bfloat16, the oldest that Triton's products are for


def gpus_are_recent() -> bool:
    """Returns whether there are GPUs, all of NVIDIA and of compute capability 8.0 or above."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    # GPUs of other makers have no compute capability.
    return bool(gpus) and all(each.get("compute_capability", (0, 0)) >= _LEAST_CAPABILITY for each in details)
