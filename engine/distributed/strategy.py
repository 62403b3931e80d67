"""Configures devices and builds distribution strategies; no other module constructs one."""

from __future__ import annotations

import contextlib
import glob
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.eager import context as eager_context
from tensorflow.python.framework import config as framework_config

from engine.distributed import gpus
from engine.distributed.cluster import Task, read_task

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
_TPU_ANSWER_SECS = 60.0
# Without the second, XLA fails on small products: "Too small divisible part of the contracting dimension".
_XLA_DETERMINISM = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_enable_triton_gemm=false")
# Logical GPUs need a limit each. CUDA's libraries and other programs take the rest.
_GPU_RATIO = 0.9
_UNKNOWN_GPU_BYTES = 8 * 2**30
_T = TypeVar("_T")


def configure_devices(*, num_virtual_devices: int, deterministic: bool = False) -> None:
    """Splits a device into logical ones and sets op determinism; call before TensorFlow initializes its devices.

    Args:
        num_virtual_devices: Number of logical devices that the first GPU becomes, or the CPU without one; 0 or 1 leaves
            it whole.
        deterministic: Whether every operation gives the same result in every run, on a GPU too.

    Raises:
        ValueError: TensorFlow has already initialized another number of devices.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        # What XLA compiles follows a flag of its own, which it reads when it first compiles.
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in _XLA_DETERMINISM if flag not in given)])
    if num_virtual_devices <= 1:
        return
    physical = (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU"))[0]
    limit = None
    if physical.device_type == "GPU":
        total = gpus.memory_bytes() or _UNKNOWN_GPU_BYTES
        limit = int(_GPU_RATIO * total / num_virtual_devices / 2**20)
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=limit)] * num_virtual_devices
    try:
        tf.config.set_logical_device_configuration(physical, parts)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices(physical.device_type)) != num_virtual_devices:
            raise ValueError(
                f"runtime.num_virtual_devices={num_virtual_devices} must be set before TensorFlow starts: {error}"
            ) from error


def is_deterministic() -> bool:
    """Returns whether op determinism is on."""
    return framework_config.is_op_determinism_enabled()


def build_strategy(
    name: str, *, tpu: str = "", start_secs: float = 600.0, heartbeat_secs: float = 20.0
) -> tf.distribute.Strategy:
    """Builds the strategy called `name`; call before TensorFlow initializes its devices.

    Args:
        name: "auto" (a TPU if one answers, "mirrored" with several GPUs, else one device), "one_device", "mirrored"
            (all GPUs, or all logical CPUs without a GPU), "multi_worker" (the processes that TF_CONFIG lists) or "tpu".
        tpu: Name or address (host:port) of the TPU, "local" for one in this machine, "" to look for one.
        start_secs: Longest wait of "multi_worker" for the other processes, in seconds.
        heartbeat_secs: Silence after which a process is considered lost, in seconds.

    Raises:
        ValueError: The name is unknown, TF_CONFIG is wrong, or the TPU or a worker does not answer.
    """
    if name not in STRATEGIES:
        raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    if tpu and name not in ("auto", "tpu"):
        raise ValueError(f"--tpu={tpu} needs --strategy=tpu, got {name}")
    if name == "multi_worker":
        return _multi_worker(read_task(), start_secs=start_secs, heartbeat_secs=heartbeat_secs)
    if name == "tpu" or tpu:
        return _tpu(tpu or _find_tpu() or "local")
    # Whoever asks for a TPU does not want to train on a CPU instead; with "auto" an address is only tried.
    if name == "auto" and (address := _find_tpu()):
        with contextlib.suppress(ValueError):
            return _tpu(address)
    return _local(name)


def _local(name: str) -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


def count_replicas(name: str) -> int:
    """Counts the replicas of the strategy called `name`, for "multi_worker" without waiting for the other processes.

    Raises:
        ValueError: The strategy cannot be built.
    """
    if name == "multi_worker":
        # Every process is assumed to have as many GPUs as this one. Without GPUs, TensorFlow uses one CPU of each.
        return len(read_task().addresses) * max(len(tf.config.list_logical_devices("GPU")), 1)
    return build_strategy(name).num_replicas_in_sync


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the step runs on a TPU: compiled, with static shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_gpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the step runs on GPUs."""
    return "GPU" in str(strategy.extended.worker_devices[0]).upper()


def is_one_device(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the whole step runs on one device of this process, without a collective."""
    return isinstance(strategy, tf.distribute.OneDeviceStrategy)


def is_one_host(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process holds all variables, in its memory or on its GPUs."""
    return not (is_tpu(strategy) or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy))


def describe(strategy: tf.distribute.Strategy) -> str:
    """Describes the strategy, its replicas and the devices of this process, such as "CPU:0-1, GPU:0", in one line."""
    numbers: dict[str, list[int]] = {}
    for device in tf.config.list_logical_devices():
        numbers.setdefault(device.device_type, []).append(int(device.name.rpartition(":")[2]))
    names = [f"{kind}:{ids[0]}" + (f"-{ids[-1]}" if len(ids) > 1 else "") for kind, ids in sorted(numbers.items())]
    return f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), devices: {', '.join(names)}"


def _multi_worker(task: Task, *, start_secs: float, heartbeat_secs: float) -> tf.distribute.Strategy:
    """Builds the strategy once all processes have joined."""
    _check_port_is_free(task.address)
    # TensorFlow's defaults wait an hour for a process that never starts; there is no public API to change them.
    context = eager_context.context()
    context.configure_coordination_service(
        service_type="standalone",
        service_leader=task.leader,
        cluster_register_timeout_in_ms=int(start_secs * 1000),
        heartbeat_timeout_in_ms=int(heartbeat_secs * 1000),
        shutdown_barrier_timeout_in_ms=int(heartbeat_secs * 1000),
    )
    # Without this, the leader ignores the limit and waits an hour for a worker that never starts.
    context.coordination_service.cluster_register_with_barrier = True
    for job, count in task.counts.items():
        context.coordination_service.coordinated_job_list.add(name=job, num_tasks=count)
    try:
        with _sigterm_comes_back():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"--strategy=multi_worker: not all of {', '.join(task.addresses)} answered within {start_secs:g} s "
            "(runtime.cluster_start_secs); start every worker with the same list in TF_CONFIG "
            f"({str(error).splitlines()[0]})"
        ) from error


@contextlib.contextmanager
def _sigterm_comes_back() -> Iterator[None]:
    """Restores the handler of SIGTERM, which TensorFlow replaces by one that swallows the signal."""
    try:
        yield
    finally:
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_port_is_free(address: str) -> None:
    """Raises ValueError if this worker cannot listen on its port; TensorFlow would abort the process."""
    _, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"TF_CONFIG: {address!r} is not HOST:PORT")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            raise ValueError(
                f"TF_CONFIG: this worker cannot listen on port {port} ({error.strerror}); stop the process that uses "
                "it, or choose another port in TF_CONFIG on all workers"
            ) from error


def _find_tpu() -> str:
    """Returns the TPU that the environment names or this machine holds, "" without one; uses no network."""
    if os.environ.get("TPU_NAME"):
        return os.environ["TPU_NAME"]
    return "local" if glob.glob("/dev/accel[0-9]*") else ""


def _tpu(name: str) -> tf.distribute.Strategy:
    """Connects to a TPU and initializes it."""
    advice = "check --tpu=NAME, --tpu=HOST:PORT or --tpu=local, or choose another --strategy"
    try:
        if name == "local" and not glob.glob("/dev/accel[0-9]*") and not glob.glob("/dev/vfio/[0-9]*"):
            raise ConnectionError("this machine has none")
        # TensorFlow retries for over an hour, so the address is tried first, with a deadline.
        resolver = _with_deadline(lambda: _resolve_tpu(name), _TPU_ANSWER_SECS)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # The Cloud client raises many kinds of errors; all mean that there is no usable TPU of this name.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"no TPU answers as {name!r} ({reason}); {advice}") from error


def _resolve_tpu(name: str) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """Finds a TPU's address and checks that something listens there."""
    is_address = ":" in name
    target = name if "://" in name or not is_address else f"grpc://{name}"
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=target)
    if name != "local":
        host, _, port = resolver.master().rpartition("/")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
    return resolver


def _with_deadline(call: Callable[[], _T], secs: float) -> _T:
    """Runs `call` in a thread, which is abandoned after a deadline, and returns its result.

    Raises:
        TimeoutError: It took too long.
    """
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:  # raised again in the calling thread
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=secs)
    except queue.Empty:
        raise TimeoutError(f"no answer within {secs:g} s") from None
    if error is not None:
        raise error
    return result
