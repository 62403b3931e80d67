"""Which strategy runs where; configure_devices needs a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

from engine import runtime


def test_auto_is_one_device_without_several_gpus():
    if len(tf.config.list_logical_devices("GPU")) > 1:
        pytest.skip("this machine has several GPUs")
    strategy = runtime.build_strategy("auto")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert strategy.num_replicas_in_sync == 1
    assert runtime.describe(strategy).startswith("OneDeviceStrategy, 1 replica(s), devices: ")


def test_unknown_strategy_lists_the_known_ones():
    with pytest.raises(ValueError, match="auto, one_device, mirrored"):
        runtime.build_strategy("tpu-pod")


def test_virtual_devices_become_replicas():
    program = (
        "from engine import runtime\n"
        "runtime.configure_devices(num_virtual_devices=3)\n"
        "print(runtime.build_strategy('mirrored').num_replicas_in_sync)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_too_late_a_split_is_refused_with_the_field_name():
    tf.zeros([])  # TensorFlow has its devices now
    with pytest.raises(ValueError, match="runtime.num_virtual_devices=5"):
        runtime.configure_devices(num_virtual_devices=5)


def test_no_split_is_asked_for_by_zero():
    runtime.configure_devices(num_virtual_devices=0)
