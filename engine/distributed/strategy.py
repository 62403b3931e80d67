"""Devices and distribution strategies; the only place that constructs a strategy."""

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

from engine.distributed.cluster import Task, read_task

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
_TPU_ANSWER_SECS = 60.0
_T = TypeVar("_T")


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


def build_strategy(
    name: str, *, tpu: str = "", start_secs: float = 600.0, heartbeat_secs: float = 20.0
) -> tf.distribute.Strategy:
    """Returns the strategy called `name`; before TensorFlow touches any device.

    Args:
        name: "auto" (a TPU if one answers, several GPUs: mirrored, else one device), "one_device", "mirrored" (all
            GPUs, or all logical CPUs where there is none), "multi_worker" (the processes that TF_CONFIG lists) or
            "tpu".
        tpu: Name or address (host:port) of the TPU, "local" for one that this machine holds, "" to look for one.
        start_secs: How long "multi_worker" waits for the other processes.
        heartbeat_secs: How long a process may be silent before the others give it up.

    Raises:
        ValueError: If the name is unknown, TF_CONFIG is wrong, or what was asked for does not answer.
    """
    if name not in STRATEGIES:
        raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    if tpu and name not in ("auto", "tpu"):
        raise ValueError(f"--tpu={tpu} needs --strategy=tpu, got {name}")
    if name == "multi_worker":
        return _multi_worker(read_task(), start_secs=start_secs, heartbeat_secs=heartbeat_secs)
    if name == "tpu":
        return _tpu(tpu or _find_tpu() or "local")
    if name == "auto" and (tpu or _find_tpu()):
        try:
            return _tpu(tpu or _find_tpu())
        except ValueError:
            if tpu:
                raise  # asked for by name: training on a CPU instead would not be what was meant
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


def count_replicas(name: str) -> int:
    """Returns the replicas of the strategy called `name`; for "multi_worker" without waiting for the other processes.

    Raises:
        ValueError: As `build_strategy`.
    """
    if name == "multi_worker":
        # Of as many GPUs as here; without any, TensorFlow takes one CPU of each process, however it is split.
        return len(read_task().addresses) * max(len(tf.config.list_logical_devices("GPU")), 1)
    return build_strategy(name).num_replicas_in_sync


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether the step runs on a TPU: compiled, with static shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_one_host(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether every variable lies in the memory of this process, or on its GPUs."""
    return not (is_tpu(strategy) or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy))


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns one line: strategy, replicas and the devices of this process, such as "CPU:0-1, GPU:0"."""
    numbers: dict[str, list[int]] = {}
    for device in tf.config.list_logical_devices():
        numbers.setdefault(device.device_type, []).append(int(device.name.rpartition(":")[2]))
    names = [f"{kind}:{ids[0]}" + (f"-{ids[-1]}" if len(ids) > 1 else "") for kind, ids in sorted(numbers.items())]
    return f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), devices: {', '.join(names)}"


def _multi_worker(task: Task, *, start_secs: float, heartbeat_secs: float) -> tf.distribute.Strategy:
    """Joins the other processes."""
    _check_port_is_free(task.address)
    # TensorFlow's own defaults wait an hour for a process that never starts. There is no public call for these.
    context = eager_context.context()
    context.configure_coordination_service(
        service_type="standalone",
        service_leader=task.leader,
        cluster_register_timeout_in_ms=int(start_secs * 1000),
        heartbeat_timeout_in_ms=int(heartbeat_secs * 1000),
        shutdown_barrier_timeout_in_ms=int(heartbeat_secs * 1000),
    )
    # Without it the time limit is for the others alone: the leader would wait an hour for a worker that never starts.
    context.coordination_service.cluster_register_with_barrier = True
    for job, count in task.counts.items():
        context.coordination_service.coordinated_job_list.add(name=job, num_tasks=count)
    try:
        with _sigterm_comes_back():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"--strategy=multi_worker: not all of {', '.join(task.addresses)} answered within {start_secs:g} s "
            f"(runtime.cluster_start_secs): start every worker, with the same list in TF_CONFIG; "
            f"{str(error).splitlines()[0]}"
        ) from error


@contextlib.contextmanager
def _sigterm_comes_back() -> Iterator[None]:
    """Puts SIGTERM's handler back: TensorFlow leaves one in its place that swallows the signal."""
    try:
        yield
    finally:
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_port_is_free(address: str) -> None:
    """TensorFlow ends the whole process where it cannot listen: say it in words instead."""
    _, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"TF_CONFIG: {address!r} is not HOST:PORT")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            raise ValueError(
                f"TF_CONFIG: this worker cannot listen on port {port} ({error.strerror}): another process has it; "
                "stop that one or choose another port for all workers"
            ) from error


def _find_tpu() -> str:
    """Returns the TPU that the environment names or this machine holds, "" without one; asks no network."""
    if os.environ.get("TPU_NAME"):
        return os.environ["TPU_NAME"]
    return "local" if glob.glob("/dev/accel[0-9]*") else ""


def _tpu(name: str) -> tf.distribute.Strategy:
    """Connects to a TPU and initializes it."""
    advice = "check --tpu=NAME, --tpu=HOST:PORT or --tpu=local, or choose another --strategy"
    try:
        if name == "local" and not glob.glob("/dev/accel[0-9]*") and not glob.glob("/dev/vfio/[0-9]*"):
            raise ConnectionError("this machine holds none")
        # TensorFlow retries for over an hour by itself: the address is tried first, and with a deadline.
        resolver = _with_deadline(lambda: _resolve_tpu(name), _TPU_ANSWER_SECS)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # What the Cloud client raises is of many kinds: all mean that there is no TPU to be had under this name.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"no TPU answers as {name!r} ({reason}); {advice}") from error


def _resolve_tpu(name: str) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """Finds a TPU's address and sees whether somebody listens there."""
    is_address = ":" in name
    target = name if "://" in name or not is_address else f"grpc://{name}"
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=target)
    if name != "local":
        host, _, port = resolver.master().rpartition("/")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
    return resolver


def _with_deadline(call: Callable[[], _T], secs: float) -> _T:
    """Returns what `call` returns, in a thread that is left behind if it takes too long.

    Raises:
        TimeoutError: It took too long.
    """
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:  # handed over, and raised below
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=secs)
    except queue.Empty:
        raise TimeoutError(f"no answer within {secs:g} s") from None
    if error is not None:
        raise error
    return result
