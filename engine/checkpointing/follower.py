"""What the workers beside the chief do instead of writing: restore what the chief restores, and explain its loss."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator

import tensorflow as tf

from engine.checkpointing.compatibility import check_matches

# What TensorFlow raises in a process whose peer is gone, depending on what it was doing at the time.
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


class FollowingCheckpoints(tf.train.CheckpointManager):
    """Stands in for the chief's CheckpointManager in `orbit.Controller`: restores the same file, saves nothing.

    A manager by type, because Orbit and TensorFlow's preemption handler take nothing else.
    """

    def __init__(
        self, *, checkpoint: tf.train.Checkpoint, path: str, init_fn: Callable[[], None], optional: Collection[str] = ()
    ) -> None:
        """Keeps its arguments.

        Args:
            checkpoint: All that the chief's manager restores.
            path: What the chief found in the workdir, which all workers share; "" = nothing.
            init_fn: Called when there is nothing to restore.
            optional: Parts of `checkpoint` that an older version did not save.
        """
        # No list of checkpoints lies under the null device: what there is to restore, the chief says.
        super().__init__(checkpoint, os.devnull, max_to_keep=1, init_fn=init_fn)
        self._latest_checkpoint = path or None
        self._optional = tuple(optional)

    def restore_or_initialize(self) -> str | None:
        """Restores, or initializes; returns the path restored.

        Raises:
            ValueError: The file is not there, or of other variables.
        """
        if self.latest_checkpoint is None:
            self._init_fn()
            return None
        check_matches(self._checkpoint, self.latest_checkpoint, optional=self._optional)
        self._checkpoint.restore(self.latest_checkpoint)
        return self.latest_checkpoint

    def save(self, checkpoint_number=None, check_interval=True, options=None) -> None:
        """Does nothing: the chief saves."""


@contextlib.contextmanager
def explained_loss(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns what TensorFlow raises when another worker is gone into one line.

    Raises:
        WorkerLostError: Another worker is gone.
    """
    try:
        yield
    except _LOSSES as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        reason = " ".join(str(error).split())[:300]
        raise WorkerLostError(
            "another worker is gone, so this one stops; what is saved is safe: start every worker again to go on from "
            f"the newest checkpoint ({type(error).__name__}: {reason})"
        ) from error
