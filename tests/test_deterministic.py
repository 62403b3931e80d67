"""Op determinism: a real run with it is the same run each time, and the options that it needs are set."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

import run as program
from configs import debug
from data.synthetic import write_synthetic_corpus
from engine import experiment
from engine.distributed import gpus
from engine.distributed import strategy as runtime
from engine.modes import verify_resume
from engine.resume_check.run_comparison import compare_runs
from tests.helpers.experiment_toys import make_config, make_parts, reproducible_lines


@pytest.fixture
def determinism(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # restored after the test
    yield
    framework_config.disable_op_determinism()


def test_the_training_loop_uses_nothing_that_determinism_forbids(tmp_path, determinism):
    config = make_config(tmp_path)
    config.runtime.deterministic = True
    for name in ("one", "other"):
        workdir = str(tmp_path / name)
        outcome = experiment.run(
            config=config, parts=make_parts(), workdir=workdir, mode="train", strategy_name="one_device"
        )
        assert outcome.exit_status == 0
    assert framework_config.is_op_determinism_enabled()
    assert reproducible_lines(tmp_path / "one") == reproducible_lines(tmp_path / "other")
    stalls = [json.loads(line)["input_stall_ratio"] for line in (tmp_path / "one/metrics.jsonl").open()]
    assert all(0 < ratio < 1 for ratio in stalls)


@pytest.mark.slow
def test_two_deterministic_runs_of_the_debug_config_are_equal(tmp_path, determinism):
    corpus = write_synthetic_corpus(
        output=tmp_path / "corpus", num_train=16, num_eval=2, num_train_speakers=2, num_eval_speakers=1
    )
    for name in ("one", "other"):
        config = debug.get_config(str(corpus))
        config.train.update({"num_updates": 2, "warmup_updates": 1, "hold_updates": 0, "log_every_updates": 1})
        config.data.speed_factors = (0.9, 1.1)
        config.checkpoint.every_updates = 1
        config.runtime.deterministic = True
        outcome = experiment.run(
            config=config, parts=program._build_parts(), workdir=str(tmp_path / name), mode="train",
            strategy_name="one_device",
        )  # fmt: skip
        assert outcome.exit_status == 0
    checks = {check.name: check for check in compare_runs(tmp_path / "one", tmp_path / "other")}
    assert sum(check.num_compared for check in checks.values()) > 100
    assert not any(check.num_different for check in checks.values()), checks


def test_xla_is_told_too_and_what_the_user_told_it_stays(monkeypatch, determinism):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/dump")
    for _ in range(2):
        runtime.configure_devices(num_virtual_devices=0, deterministic=True)
        assert os.environ["XLA_FLAGS"] == (
            "--xla_dump_to=/tmp/dump --xla_gpu_deterministic_ops=true --xla_gpu_enable_triton_gemm=false"
        )


def test_a_run_without_it_sets_nothing(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    runtime.configure_devices(num_virtual_devices=0)
    assert not framework_config.is_op_determinism_enabled() and "XLA_FLAGS" not in os.environ


def test_a_gpu_is_split_with_a_limit_for_each_part(monkeypatch):
    seen = []
    gpu = SimpleNamespace(device_type="GPU", name="GPU:0")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu])
    monkeypatch.setattr(
        tf.config, "set_logical_device_configuration", lambda device, parts: seen.append((device, parts))
    )
    monkeypatch.setattr(gpus, "memory_bytes", lambda: 80 * 2**30)
    runtime.configure_devices(num_virtual_devices=2)
    ((device, parts),) = seen
    assert device is gpu and [part.memory_limit for part in parts] == [36 * 1024] * 2


@pytest.mark.parametrize("kinds", [["CPU"], ["CPU", "GPU"]])
def test_verify_resume_asks_for_it_on_a_gpu(tmp_path, monkeypatch, kinds):
    commands = []

    def run_straight(command, **fields):
        commands.append(command)
        raise ValueError("enough")

    monkeypatch.setattr(verify_resume, "run_straight", run_straight)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind] if kind in kinds else [])
    with pytest.raises(ValueError, match="enough"):
        verify_resume.run(config=debug.get_config(), command=["python", "run.py"], workdir=str(tmp_path))
    assert ("--config.runtime.deterministic=True" in commands[0]) == ("GPU" in kinds)
