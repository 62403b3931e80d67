"""Restores checkpoints on the workers beside the chief, which write none."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from engine.checkpointing.compatibility import check_matches


class FollowingCheckpoints(tf.train.CheckpointManager):
    """Replaces the chief's manager in `orbit.Controller` on other workers: restores the same file, saves nothing.

    Orbit and TensorFlow's preemption handler only accept a CheckpointManager.
    """

    def __init__(self, *, checkpoint: tf.train.Checkpoint, path: str, init_fn: Callable[[], None]) -> None:
        """Restores nothing yet.

        Args:
            checkpoint: The same object as the chief's manager has.
            path: Checkpoint that the chief found in the shared workdir; "" if it found none.
            init_fn: Called if there is nothing to restore.
        """
        # The null device holds no list of checkpoints: the chief decides what is restored.
        super().__init__(checkpoint, os.devnull, max_to_keep=1, init_fn=init_fn)
        self._latest_checkpoint = path or None

    def restore_or_initialize(self) -> str | None:
        """Restores or initializes; returns the path restored.

        Raises:
            ValueError: The file does not exist or does not match.
        """
        if self.latest_checkpoint is None:
            self._init_fn()
            return None
        check_matches(self._checkpoint, self.latest_checkpoint)
        self._checkpoint.restore(self.latest_checkpoint)
        return self.latest_checkpoint

    def save(self, checkpoint_number=None, check_interval=True, options=None) -> None:
        """Does nothing: the chief saves."""
