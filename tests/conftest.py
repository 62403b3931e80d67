"""What every test run shares: quiet TensorFlow, two logical CPUs, no deadlines."""

from __future__ import annotations

import os
import sys
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # as run.py

# A deadline measures how busy the machine is.
hypothesis.settings.register_profile("shared_machine", deadline=None)
hypothesis.settings.load_profile("shared_machine")

# Slow tests that need up to 10 GB and every core: never two at once.
LARGE = ("tests/models/test_reference.py", "tests/test_padding.py", "tests/test_real_speech.py")
# Files of few tests that take long. They come first: one that begins last keeps one worker busy and the other waiting.
LONG = (
    "tests/engine/test_any_devices.py",
    "tests/engine/training/test_compiled_steps.py",
    "tests/models/ops/test_fused.py",
    "tests/test_equivalence.py",
    "tests/test_hub_run.py",
    "tests/test_run.py",
    "tests/test_training_losses.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist=loadfile: a file is one worker's, and so are all of `LARGE` together.

    pytest-xdist's own way, --dist=loadgroup, does not see its marks under pytest 9.2 (tried with 3.8).
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneLargeAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "large" if file in LARGE else file

    config.option.loadscopereorder = False  # it would put the files with the most tests first
    return OneLargeAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of `LONG` first."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONG)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Splits the CPU in two, so that tests can run a strategy of two replicas in this process.

    TensorFlow allows it only before it first touches a device: after the test modules are imported
    and before the first test. Where no test module imports TensorFlow, its seconds are saved.
    """
    if "tensorflow" not in sys.modules:
        return
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()]
        )
    except RuntimeError as error:
        raise pytest.UsageError(
            "a test module makes a tensor while it is imported, which starts TensorFlow before "
            f"tests/conftest.py can split the CPU: move it into a test or a fixture ({error})"
        ) from error
    _stop_tuning(tf)


def _stop_tuning(tf: Any) -> None:
    """Turns off tf.data's tuner in the prefetch onto devices, which no option reaches.

    Tests destroy many iterators, and now and then one waits a minute for its tuner (docs/decisions/0084).
    """
    from tensorflow.python.data.ops import multi_device_iterator_ops

    create = multi_device_iterator_ops._create_device_dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    multi_device_iterator_ops._create_device_dataset = lambda *arguments: create(*arguments).with_options(options)


@pytest.fixture(scope="session")
def two_replicas() -> Any:
    """A mirrored strategy over the two logical CPUs that tests/conftest.py made.

    One for the whole session: strategies made one after the other number their collectives from the same start, and
    TensorFlow aborts when a number comes back with another shape.
    """
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    return tf.distribute.MirroredStrategy(devices)
