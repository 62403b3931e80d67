"""Reads TF_CONFIG, tells which process writes the workdir, and exchanges small values between the processes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from common.json_files import MalformedFileError, field, parse_object

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_JOBS = ("chief", "worker")
_SHOWN_CHARACTERS = 300  # of a wrong value in a message


@dataclasses.dataclass(frozen=True)
class Task:
    """Identifies this process among the processes of a run.

    Attributes:
        job: "chief" or "worker".
        index: Index of the process within its job.
        addresses: host:port of all processes, the chief's first.
        counts: {job: number of processes}.
    """

    job: str
    index: int
    addresses: tuple[str, ...]
    counts: dict[str, int]

    @property
    def address(self) -> str:
        """Address that this process listens on, host:port."""
        return self.addresses[self.index + (self.counts.get("chief", 0) if self.job == "worker" else 0)]

    @property
    def leader(self) -> str:
        """Task of the process that monitors the others."""
        return f"/job:{'chief' if 'chief' in self.counts else 'worker'}/replica:0/task:0"


def read_task() -> Task:
    """Reads the environment variable TF_CONFIG.

    Raises:
        ValueError: It is missing or wrong; shows an example.
    """
    text = os.environ.get("TF_CONFIG", "")
    wanted = f"--strategy=multi_worker needs the environment variable TF_CONFIG, for example {_EXAMPLE}"
    if not text:
        raise ValueError(f"{wanted}; it is not set")
    try:
        cluster, job, index = _parse_tf_config(text)
    except MalformedFileError as error:
        raise ValueError(f"{wanted}; it is {text[:_SHOWN_CHARACTERS]!r} ({error})") from error
    addresses = tuple(address for name in _JOBS for address in cluster.get(name, ()))
    if unknown := sorted(set(cluster) - set(_JOBS)):
        raise ValueError(f"{wanted}; job {unknown[0]!r} is not one of {', '.join(_JOBS)}")
    if fault := _find_fault(cluster, job, index, addresses):
        raise ValueError(f"{wanted}; {fault}")
    return Task(job, index, addresses, {name: len(cluster[name]) for name in _JOBS if name in cluster})


def _find_fault(cluster: Mapping[str, Sequence[str]], job: str, index: int, addresses: Sequence[str]) -> str:
    """Returns what is wrong with a cluster of known jobs, or with the place of a task in it; "" if nothing is."""
    if job not in cluster or not 0 <= index < len(cluster[job]):
        return f"task {job} {index} is not in its cluster"
    if len(cluster.get("chief", ["one"])) != 1:
        return "it must have exactly one chief"
    return "an address occurs twice" if len(set(addresses)) != len(addresses) else ""


def _parse_tf_config(text: str) -> tuple[dict[str, list[str]], str, int]:
    """Returns cluster, job and index of the task; raises MalformedFileError."""
    config = parse_object(text, "TF_CONFIG")
    jobs, task = (field(config, name, dict, "TF_CONFIG") for name in ("cluster", "task"))
    cluster = {job: field(jobs, job, list, "its cluster") for job in jobs}
    if not all(isinstance(address, str) for addresses in cluster.values() for address in addresses):
        raise MalformedFileError("its cluster: an address is not text")
    index = task.get("index")
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:  # some launchers write text
        index = int(index)
    return cluster, field(task, "type", str, "its task"), field({"index": index}, "index", int, "its task")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the workdir."""
    return bool(strategy.extended.should_checkpoint)


def gather_texts(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Returns the texts of all workers, in the same order on every worker; eager.

    Every worker must call this at the same point of the run. Two sums over all workers carry the texts: one of the
    lengths, and one of a vector in which each worker fills its own range.

    Args:
        strategy: Strategy of the run; with one process, its text is the only one.
        text: Text of this worker.
    """
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return [text]
    counts = {job: len(addresses) for job, addresses in resolver.cluster_spec().as_dict().items()}
    num_workers = sum(counts.values())
    index = resolver.task_id + (counts.get("chief", 0) if resolver.task_type == "worker" else 0)
    data = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
    lengths = np.zeros(num_workers, np.int32)
    lengths[index] = len(data)
    lengths = _sum_over_workers(strategy, lengths, num_workers)
    ends = np.cumsum(lengths)
    # Keep at least one element: zero-size collectives take a different code path.
    whole = np.zeros(int(ends[-1]) + 1, np.int32)
    whole[ends[index] - len(data) : ends[index]] = data
    whole = _sum_over_workers(strategy, whole, num_workers)
    return [part.tobytes().decode("utf-8") for part in np.split(whole.astype(np.uint8), ends)[:-1]]


def check_same(strategy: tf.distribute.Strategy, what: str, value: str) -> None:
    """Checks that all workers hold the same value; eager, every worker must call it.

    Raises:
        ValueError: The values differ; names the first worker whose value differs from the chief's.
    """
    values = gather_texts(strategy, value)
    for index, other in enumerate(values):
        if other != values[0]:
            raise ValueError(
                f"worker {index} has {what} {other}, the chief {values[0]}: give all workers the same config, and put "
                "workdir and data on a shared file system"
            )


class AnyWorker:
    """Tells all workers whether a flag is set on any of them; eager.

    It is a collective of one number, traced once, and cheap enough for every batch of an evaluation.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        """Traces nothing yet."""
        self._strategy = strategy
        self._sum = tf.function(lambda value: strategy.run(self._on_replica, args=(value,)), autograph=False)

    @staticmethod
    def _on_replica(value: tf.Tensor) -> tf.Tensor:
        # The identity places the value on a device; the reduction refuses the argument itself.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

    def __call__(self, flag: bool) -> bool:
        """Returns whether `flag` is true on any worker; every worker must call it at the same point of the run."""
        found = self._sum(tf.constant(int(flag), tf.int32))
        return int(self._strategy.experimental_local_results(found)[0]) > 0


def _sum_over_workers(strategy: tf.distribute.Strategy, vector: np.ndarray, num_workers: int) -> np.ndarray:
    num_local = strategy.num_replicas_in_sync // num_workers

    @tf.function(autograph=False)
    def reduce(values: tf.Tensor) -> tf.Tensor:
        def on_replica(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # All replicas of a worker hold its vector; only the first one's counts.
            is_first = tf.cast(tf.equal(context.replica_id_in_sync_group % num_local, 0), tf.int32)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values * is_first)

        return strategy.run(on_replica, args=(values,))

    return strategy.experimental_local_results(reduce(tf.constant(vector, tf.int32)))[0].numpy()
