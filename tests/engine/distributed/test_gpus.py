"""The lines about GPUs that TensorFlow cannot use, and their memory; device files and devices are stand-ins."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import pytest
import tensorflow as tf

from engine.distributed import gpus

GPU = SimpleNamespace(name="/physical_device:GPU:0", device_type="GPU")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine without GPUs, nvidia-smi and CUDA's packages."""

    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    state = SimpleNamespace(gpus=[], details={}, smi=[], set=monkeypatch.setattr)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: state.gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: state.details)
    monkeypatch.setattr(gpus, "ask_nvidia_smi", lambda *arguments: state.smi)
    monkeypatch.setattr(importlib.metadata, "version", version)
    return state


def add(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_machine_without_a_gpu_has_nothing_to_say(tmp_path):
    add(tmp_path, "dev/nvidiactl", "dev/nvidia-uvm", "proc/driver/other")
    assert gpus.find_gpu_faults(root=str(tmp_path)) == []


def test_device_files_without_cuda_name_the_command_that_installs_it(tmp_path):
    add(tmp_path, "dev/nvidia0", "dev/nvidia1")
    (line,) = gpus.find_gpu_faults(root=str(tmp_path))
    assert line.startswith(f"this machine has 2 NVIDIA GPUs ({tmp_path}/dev/nvidia0, {tmp_path}/dev/nvidia1), but")
    assert "make install EXTRAS=gpu, or .venv/bin/pip install -e '.[gpu]'" in line


def test_nvidia_smi_knows_of_a_gpu_without_device_files(tmp_path, machine):
    machine.smi = ["GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1)"]
    (line,) = gpus.find_gpu_faults(root=str(tmp_path))
    assert line.startswith("this machine has 1 NVIDIA GPU (GPU 0: NVIDIA GeForce RTX 4090), but TensorFlow sees none")


def test_installed_libraries_are_not_asked_for_again(tmp_path, machine, monkeypatch):
    add(tmp_path, "dev/nvidia0")
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "9.1")
    (line,) = gpus.find_gpu_faults(root=str(tmp_path))
    assert "nvidia-smi answers" in line and "TF_CPP_MIN_LOG_LEVEL=0" in line and "EXTRAS" not in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    (line,) = gpus.find_gpu_faults(root=str(tmp_path))
    assert line.endswith("CUDA_VISIBLE_DEVICES=7 may name another one; nvidia-smi lists them")


def test_a_container_that_was_not_given_the_gpu_hears_how(tmp_path):
    add(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information")
    (line,) = gpus.find_gpu_faults(root=str(tmp_path))
    assert "docker run --gpus all" in line


@pytest.mark.parametrize("value", ["", "-1", "-1,0", "NoDevFiles"])
def test_gpus_that_are_hidden_on_purpose_are_not_mentioned(tmp_path, monkeypatch, machine, value):
    add(tmp_path, "dev/nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    machine.smi = ["GPU 0: a GPU"]
    assert gpus.find_gpu_faults(root=str(tmp_path)) == []


@pytest.mark.parametrize(
    ("capability", "fails"), [((8, 0), False), ((9, 0), False), ((10, 0), False), ((12, 0), True), ((12, 1), True)]
)
def test_a_gpu_that_is_too_new_for_tensorflow_is_named(tmp_path, machine, capability, fails):
    add(tmp_path, "dev/nvidia0")
    machine.gpus, machine.details = [GPU], {"compute_capability": capability, "device_name": "NVIDIA GeForce RTX 5090"}
    lines = gpus.find_gpu_faults(root=str(tmp_path))
    assert len(lines) == fails
    if fails:
        assert lines[0].startswith(f"NVIDIA GeForce RTX 5090 has compute capability 12.{capability[1]}, for which")


def test_the_smallest_gpu_in_use_decides_about_memory(machine, monkeypatch):
    assert gpus.memory_bytes() is None
    machine.smi = ["0, 81559", "1, 24564", "2, [N/A]"]
    assert gpus.memory_bytes() == 24564 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.memory_bytes() == 81559 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f1c")  # by name: the smallest of all is a safe guess
    assert gpus.memory_bytes() == 24564 * 2**20


def test_a_program_that_fails_or_hangs_says_nothing(tmp_path, monkeypatch):
    monkeypatch.undo()
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))  # alone: this machine may have the real one
    assert gpus.ask_nvidia_smi("-L") == []
    for script, lines in (("echo GPU 0: x", ["GPU 0: x"]), ("echo broken; exit 9", []), ("exec /bin/sleep 5", [])):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(gpus, "_SMI_SECS", 0.5)
        assert gpus.ask_nvidia_smi("-L") == lines
