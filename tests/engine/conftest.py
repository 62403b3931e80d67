"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
import tensorflow as tf


@pytest.fixture
def two_replicas() -> tf.distribute.Strategy:
    """A mirrored strategy over the two logical CPUs that tests/conftest.py made."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    return tf.distribute.MirroredStrategy(devices)
