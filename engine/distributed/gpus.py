"""Tells in one line each why TensorFlow cannot use the GPUs of this machine, and how much memory they have."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Sequence

import tensorflow as tf

_INSTALL = "make install EXTRAS=gpu, or .venv/bin/pip install -e '.[gpu]'"
_TO_THE_CPU = "set CUDA_VISIBLE_DEVICES=-1 to stay on the CPU without this line"
# What TensorFlow's extra `and-cuda` installs; one package stands for all.
_CUDA_PACKAGE = "nvidia-cudnn-cu12"
# Its wheels hold kernels for 6.0 to 9.0 and PTX for what is newer.
_FIRST_FAILING_CAPABILITY = (12, 0)
_SMI_SECS = 10.0


def find_gpu_faults(*, root: str = "/") -> list[str]:
    """Returns a line for each reason why a GPU of this machine is not used or will fail; [] if all is well.

    Args:
        root: Folder that has the folders `dev` and `proc` of this machine.
    """
    visible = _visible_devices()
    if visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles", "none"):
        return []
    if gpus := tf.config.list_physical_devices("GPU"):
        return [line for gpu in gpus if (line := _find_old_build(gpu))]
    return [line] if (line := _find_unseen(root, visible)) else []


def _find_unseen(root: str, visible: str | None) -> str:
    """Returns a line about GPUs of which TensorFlow sees none; "" for a machine without a GPU."""
    devices = glob.glob(os.path.join(root, "dev/nvidia[0-9]*"))
    has_driver = bool(glob.glob(os.path.join(root, "proc/driver/nvidia/gpus/*")))
    if not devices and not has_driver:
        devices = [line.split(" (UUID")[0] for line in ask_nvidia_smi("--list-gpus") if line.startswith("GPU ")]
    if devices:
        return f"this machine has {_count(devices)}, but TensorFlow sees none and runs on the CPU: {_remedy(visible)}"
    if has_driver:  # a container sees the driver of its host
        return (
            "the driver of an NVIDIA GPU is loaded, but there is no /dev/nvidia0: give this container the GPUs of its "
            f"host (docker run --gpus all); {_TO_THE_CPU}"
        )
    return ""


def _visible_devices() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _count(devices: Sequence[str]) -> str:
    return f"{len(devices)} NVIDIA GPU{'s' * (len(devices) != 1)} ({', '.join(sorted(devices)[:2])})"


def _remedy(visible: str | None) -> str:
    try:
        importlib.metadata.version(_CUDA_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return f"install CUDA's libraries with {_INSTALL}; {_TO_THE_CPU}"
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible} may name another one; nvidia-smi lists them"
    return (
        "CUDA's libraries are installed, so check that nvidia-smi answers (the driver must be 525 or newer); "
        f"TF_CPP_MIN_LOG_LEVEL=0 shows what TensorFlow misses; {_TO_THE_CPU}"
    )


def _find_old_build(gpu: tf.config.PhysicalDevice) -> str:
    """Returns a line for a GPU that is too new for this TensorFlow; "" for any other."""
    details = tf.config.experimental.get_device_details(gpu)
    capability = details.get("compute_capability")
    if capability is None or tuple(capability) < _FIRST_FAILING_CAPABILITY:
        return ""
    name = details.get("device_name", gpu.name)
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}, for which TensorFlow {tf.__version__} has no "
        "kernels: others report CUDA_ERROR_INVALID_PTX and CUDA_ERROR_INVALID_HANDLE "
        "(https://github.com/tensorflow/tensorflow/issues/89272); use a TensorFlow built for this GPU, such as "
        "NVIDIA's container, another GPU, or CUDA_VISIBLE_DEVICES=-1"
    )


def ask_nvidia_smi(*arguments: str) -> list[str]:
    """Returns the lines that nvidia-smi prints; [] where it is absent or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=_SMI_SECS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def memory_bytes() -> int | None:
    """Returns the memory of the smallest visible GPU in bytes; None if it is unknown."""
    lines = ask_nvidia_smi("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")
    sizes = {}
    for line in lines:
        index, _, mebibytes = (part.strip() for part in line.partition(","))
        if mebibytes.isdecimal():  # "[N/A]" where the GPU shares the machine's memory
            sizes[index] = int(mebibytes) * 2**20
    visible = [name.strip() for name in (_visible_devices() or "").split(",")]
    chosen = [sizes[name] for name in visible if name in sizes] or list(sizes.values())
    return min(chosen, default=None)
