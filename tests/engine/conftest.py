"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """A mirrored strategy over the two logical CPUs that tests/conftest.py made.

    One for the whole session: strategies made one after the other number their collectives from the same start, and
    TensorFlow aborts when a number comes back with another shape.
    """
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    return tf.distribute.MirroredStrategy(devices)
