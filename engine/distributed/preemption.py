"""A run of several processes that is told to leave: all save at the same update, through TensorFlow's own handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import orbit
import tensorflow as tf

from engine.common.signals import StopOnSignal, StopTraining

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
        any_worker: Callable[[bool], bool],
    ) -> None:
        """Takes SIGTERM over from `stop`; the time limit that `stop` watches over stays.

        Args:
            cluster_resolver: Of the strategy.
            manager: Of this process; in all but one it saves nothing. Restores once more, to the same values; what it
                saves gets a part more, `CHECKPOINT_PART`.
            global_step: Numbers the checkpoint.
            stop: Told that the run was asked to stop, for its exit status.
            any_worker: As `cluster.AnyWorker`.
        """
        self._stop = stop
        self._number = signal.SIGTERM
        self._action = orbit.actions.SaveCheckpointIfPreempted(cluster_resolver, manager, checkpoint_number=global_step)
        self._any_worker = any_worker
        self._has_signal = False
        self._their_handler = signal.signal(signal.SIGTERM, self._note)
        # Ctrl-C and a closed terminal, too, must not stop one process alone. What nohup ignores stays ignored.
        signal.signal(signal.SIGINT, self._pass_on)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._pass_on)

    def __call__(self, output: Any = None) -> None:
        """Raises StopTraining, everything saved, at the update that the processes have agreed on."""
        try:
            self._action(output)
        except SystemExit as leaving:
            # How the handler ends a process; its status is a platform's, not ours.
            raise self._leaving() from leaving

    def between_batches(self) -> None:
        """Raises StopTraining after the same batch of an evaluation in all processes, if one of them has a signal.

        The handler's own agreement counts updates, of which an evaluation has none, and may take longer than there is.
        """
        if self._any_worker(self._has_signal):
            raise self._leaving()

    def _leaving(self) -> StopTraining:
        self._stop.signal_number = self._number
        return StopTraining(f"stopped by {signal.Signals(self._number).name}, with all processes")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._has_signal = True
        if callable(self._their_handler):
            self._their_handler(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._number = signal.Signals(number)
        os.kill(os.getpid(), signal.SIGTERM)
