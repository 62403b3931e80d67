"""Tells the kind of device that a function traced now will run on."""

from __future__ import annotations

import tensorflow as tf


def device_type() -> str:
    """Returns "TPU", "GPU" or "CPU", the kind of device that training uses where it is visible."""
    return next((kind for kind in ("TPU", "GPU") if tf.config.list_logical_devices(kind)), "CPU")


def on_cpu() -> bool:
    """Returns whether no accelerator is visible."""
    return device_type() == "CPU"
