"""Which strategy runs where; configure_devices needs a fresh process."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from engine.distributed import strategy as runtime
from tests.helpers.workers import finish_workers, said, start_workers


def test_auto_is_one_device_without_several_gpus():
    if len(tf.config.list_logical_devices("GPU")) > 1:
        pytest.skip("this machine has several GPUs")
    strategy = runtime.build_strategy("auto")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert strategy.num_replicas_in_sync == 1
    assert runtime.describe(strategy).startswith("OneDeviceStrategy, 1 replica(s), devices: CPU:0-1")


def test_unknown_strategy_lists_the_known_ones():
    with pytest.raises(ValueError, match="auto, one_device, mirrored, multi_worker, tpu"):
        runtime.build_strategy("tpu-pod")


def test_virtual_devices_become_replicas():
    program = (
        "from engine.distributed import strategy as runtime\n"
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


def test_a_tpu_that_is_not_there_is_one_line_and_no_wait():
    start = time.monotonic()
    with socket.socket() as listener:  # bound and not listening: the address refuses
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no TPU answers as '{address}' .*refused.*check --tpu=NAME"):
            runtime.build_strategy("tpu", tpu=address)
    with pytest.raises(ValueError, match="no TPU answers as 'local' .this machine has none"):
        runtime.build_strategy("tpu", tpu="local")
    with pytest.raises(ValueError, match="no TPU answers"):
        runtime.build_strategy("auto", tpu="local")
    assert time.monotonic() - start < 60


def test_auto_goes_on_without_the_tpu_that_the_environment_only_hints_at(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    assert isinstance(runtime.build_strategy("auto"), tf.distribute.OneDeviceStrategy)


def test_a_tpu_is_not_named_for_another_strategy():
    with pytest.raises(ValueError, match="--tpu=pod needs --strategy=tpu, got mirrored"):
        runtime.build_strategy("mirrored", tpu="pod")


def test_a_call_that_takes_too_long_is_left_behind():
    with pytest.raises(TimeoutError, match="no answer within 0.05 s"):
        runtime._with_deadline(lambda: time.sleep(5), 0.05)
    assert runtime._with_deadline(lambda: 7, 5) == 7
    with pytest.raises(KeyError):
        runtime._with_deadline(lambda: {}["x"], 5)


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        workers = {"cluster": {"worker": [f"127.0.0.1:{port}"]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
        with pytest.raises(ValueError, match=f"cannot listen on port {port}"):
            runtime.build_strategy("multi_worker")


def test_the_chief_waits_for_a_worker_that_never_starts_no_longer_than_it_is_told(tmp_path):
    """And gives it up in words; without the limit TensorFlow would wait an hour."""
    program = "from engine.distributed import strategy as runtime; runtime.build_strategy('multi_worker', start_secs=2)"
    (chief,) = start_workers([["-c", program]], tmp_path, missing=1)
    assert finish_workers([chief], tmp_path, timeout_secs=120) == [1]
    assert "answered within 2 s (runtime.cluster_start_secs); start every worker" in said(tmp_path, 0)


def test_only_this_module_constructs_strategies():
    root = Path(runtime.__file__).parents[2]
    pattern = re.compile(r"distribute\.(?:experimental\.)?\w*Strategy\(|\bTPUStrategy\(")
    found = {
        path.relative_to(root).as_posix()
        for part in ("data", "models", "engine", "benchmarks")
        for path in (root / part).rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"engine/distributed/strategy.py"}
