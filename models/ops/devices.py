"""Tells the kind of device that a function traced now will run on."""

from __future__ import annotations

import tensorflow as tf


def on_cpu() -> bool:
    """Returns whether no accelerator is visible."""
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
