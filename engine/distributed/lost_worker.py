"""Explains TensorFlow's error when another worker of the run is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from common.readable import describe_error

# TensorFlow raises one of these in a process whose peer is gone, depending on what it was doing.
_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


class WorkerLostError(ConnectionError):
    """Another process of the run is gone; the message is one line for the user."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: the same command may well succeed


@contextlib.contextmanager
def explained_loss(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into one line.

    Raises:
        WorkerLostError: Another worker is gone.
    """
    try:
        yield
    except _LOSSES as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        reason = describe_error(error, 300)
        raise WorkerLostError(
            "another worker is gone, so this one stops; checkpoints are intact: start every worker again to continue "
            f"from the newest one ({type(error).__name__}: {reason})"
        ) from error
