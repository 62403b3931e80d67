"""A run of several processes that is told to leave: all save at the same update, through TensorFlow's own handler."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import orbit
import tensorflow as tf

from engine.stopping import StopOnSignal, StopTraining

# What PreemptionCheckpointHandler adds to the checkpoint that it is given; one saved without it may be continued.
CHECKPOINT_PART = "checkpointed_runs"


class SaveAllIfPreempted:
    """Orbit's `SaveCheckpointIfPreempted`, to be called between updates, with our way of ending a run.

    The signal comes to one process; the handler lets all of them agree on an update, and saves there. One process that
    stopped by itself would leave the others waiting in an all-reduce.
    """

    def __init__(
        self,
        *,
        cluster_resolver: tf.distribute.cluster_resolver.ClusterResolver,
        manager: tf.train.CheckpointManager,
        global_step: tf.Variable,
        stop: StopOnSignal,
    ) -> None:
        """Takes SIGTERM over from `stop`; the time limit that `stop` watches over stays.

        Args:
            cluster_resolver: Of the strategy.
            manager: Of this process; in all but one it saves nothing. Restores once more, to the same values; what it
                saves gets a part more, `CHECKPOINT_PART`.
            global_step: Numbers the checkpoint.
            stop: Told that the run was asked to stop, for its exit status.
        """
        self._stop = stop
        self._number = signal.SIGTERM
        self._action = orbit.actions.SaveCheckpointIfPreempted(
            cluster_resolver, manager, checkpoint_number=global_step
        )
        # Ctrl-C, too, must not stop one process alone.
        signal.signal(signal.SIGINT, self._pass_on)

    def __call__(self, output: Any = None) -> None:
        """Raises StopTraining, everything saved, at the update that the processes have agreed on."""
        try:
            self._action(output)
        except SystemExit as leaving:
            # How the handler ends a process; its status is a platform's, not ours.
            self._stop.signal_number = self._number
            raise StopTraining(f"stopped by {signal.Signals(self._number).name}, with all processes") from leaving

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._number = signal.Signals(number)
        os.kill(os.getpid(), signal.SIGTERM)
