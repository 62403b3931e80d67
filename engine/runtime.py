"""Devices and distribution strategies; the only place that constructs a strategy."""

from __future__ import annotations

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored")


def configure_devices(*, num_virtual_devices: int) -> None:
    """Splits the CPU into logical devices; must run before TensorFlow touches any device.

    Args:
        num_virtual_devices: Logical CPUs to make; 0 or 1 leaves the CPU whole.

    Raises:
        ValueError: If TensorFlow has initialized its devices already, with another number of them.
    """
    if num_virtual_devices <= 1:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_virtual_devices)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != num_virtual_devices:
            raise ValueError(
                f"runtime.num_virtual_devices={num_virtual_devices} must be set before TensorFlow starts: {error}"
            ) from error


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy called `name`.

    Args:
        name: "auto" (several GPUs: mirrored, else one device), "one_device" or "mirrored" (all GPUs, or all logical
            CPUs where there is none).

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in STRATEGIES:
        raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns one line: strategy, replicas and devices."""
    devices = ", ".join(sorted({d.device_type for d in tf.config.list_logical_devices()}))
    return f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), devices: {devices}"
