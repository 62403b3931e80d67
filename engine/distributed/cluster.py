"""The processes of one run: what TF_CONFIG says about them, who writes the workdir, and what they tell each other."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tensorflow as tf

from common.json_files import MalformedFileError, field, parse_object

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_JOBS = ("chief", "worker")
_SHOWN_CHARACTERS = 300  # of a value that is wrong


@dataclasses.dataclass(frozen=True)
class Task:
    """This process among the processes of a run.

    Attributes:
        job: "chief" or "worker".
        index: Of the process within its job.
        addresses: host:port of all processes, the chief's first.
        counts: {job: processes}.
    """

    job: str
    index: int
    addresses: tuple[str, ...]
    counts: dict[str, int]

    @property
    def address(self) -> str:
        """Where this process listens, host:port."""
        return self.addresses[self.index + (self.counts.get("chief", 0) if self.job == "worker" else 0)]

    @property
    def leader(self) -> str:
        """The task whose process keeps watch over the others."""
        return f"/job:{'chief' if 'chief' in self.counts else 'worker'}/replica:0/task:0"


def read_task() -> Task:
    """Reads the environment variable TF_CONFIG.

    Raises:
        ValueError: It is missing or wrong; says how it must look.
    """
    text = os.environ.get("TF_CONFIG", "")
    wanted = f"--strategy=multi_worker needs the environment variable TF_CONFIG, for example {_EXAMPLE}"
    if not text:
        raise ValueError(f"{wanted}; it is not set")
    try:
        config = parse_object(text, "TF_CONFIG")
        jobs, task = (field(config, name, dict, "TF_CONFIG") for name in ("cluster", "task"))
        cluster = {job: field(jobs, job, list, "its cluster") for job in jobs}
        if not all(isinstance(address, str) for addresses in cluster.values() for address in addresses):
            raise MalformedFileError("its cluster: an address is not text")
        job, index = field(task, "type", str, "its task"), task.get("index")
        if isinstance(index, str) and index.isdecimal() and len(index) < 10:  # as some launchers write it
            index = int(index)
        index = field({"index": index}, "index", int, "its task")
    except MalformedFileError as error:
        raise ValueError(f"{wanted}; it is {text[:_SHOWN_CHARACTERS]!r} ({error})") from error
    unknown = sorted(set(cluster) - set(_JOBS))
    if unknown:
        raise ValueError(f"{wanted}; job {unknown[0]!r} is not one of {', '.join(_JOBS)}")
    if job not in cluster or not 0 <= index < len(cluster[job]):
        raise ValueError(f"{wanted}; task {job} {index} is not in its cluster")
    if len(cluster.get("chief", ["one"])) != 1:
        raise ValueError(f"{wanted}; there must be exactly one chief")
    addresses = tuple(address for name in _JOBS for address in cluster.get(name, ()))
    if len(set(addresses)) != len(addresses):
        raise ValueError(f"{wanted}; an address is there twice")
    return Task(job, index, addresses, {name: len(cluster[name]) for name in _JOBS if name in cluster})


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process writes the workdir; the only one, except among several workers."""
    return bool(strategy.extended.should_checkpoint)


def gather_texts(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Gives every worker the texts of all, in one order; eager.

    Every worker must call it, at the same point of the run. Two sums over all workers carry the texts: of the lengths,
    and of one vector into which each worker writes at its own place.

    Args:
        strategy: That of the run; with one process, its text is the only one.
        text: What this worker has to say.
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
    # Never empty: a collective over nothing is a path of its own.
    whole = np.zeros(int(ends[-1]) + 1, np.int32)
    whole[ends[index] - len(data) : ends[index]] = data
    whole = _sum_over_workers(strategy, whole, num_workers)
    pieces = np.split(whole.astype(np.uint8), ends)[:-1]
    return [piece.tobytes().decode("utf-8") for piece in pieces]


def check_same(strategy: tf.distribute.Strategy, what: str, value: str) -> None:
    """Checks that all workers hold the same value; eager, and called by all.

    Raises:
        ValueError: They do not; names the first worker that differs from the chief.
    """
    values = gather_texts(strategy, value)
    for index, other in enumerate(values):
        if other != values[0]:
            raise ValueError(
                f"worker {index} has {what} {other}, the chief {values[0]}: all workers need the same config, and a "
                "workdir and data on a file system that they share"
            )


class AnyWorker:
    """Lets all workers know whether something is so on one of them; eager.

    A collective of one number, traced once: cheap enough to be asked after every batch of an evaluation.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        """Keeps the strategy of the run."""
        self._strategy = strategy
        self._sum = tf.function(lambda value: strategy.run(self._on_replica, args=(value,)), autograph=False)

    @staticmethod
    def _on_replica(value: tf.Tensor) -> tf.Tensor:
        # An operation of its own: the argument itself is on no device yet, which the reduction refuses.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

    def __call__(self, is_so: bool) -> bool:
        """Tells whether `is_so` is true on any worker; every worker must call it, at the same point of the run."""
        found = self._sum(tf.constant(int(is_so), tf.int32))
        return int(self._strategy.experimental_local_results(found)[0]) > 0


def _sum_over_workers(strategy: tf.distribute.Strategy, vector: np.ndarray, num_workers: int) -> np.ndarray:
    num_local = strategy.num_replicas_in_sync // num_workers

    @tf.function(autograph=False)
    def reduce(values: tf.Tensor) -> tf.Tensor:
        def on_replica(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # A worker's replicas all hold its vector: one of them speaks.
            speaks = tf.cast(tf.equal(context.replica_id_in_sync_group % num_local, 0), tf.int32)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values * speaks)

        return strategy.run(on_replica, args=(values,))

    return strategy.experimental_local_results(reduce(tf.constant(vector, tf.int32)))[0].numpy()
