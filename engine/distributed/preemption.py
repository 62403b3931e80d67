"""Stops a run of several processes at the same update, using TensorFlow's preemption handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import orbit
import tensorflow as tf

from engine.common.signals import StopOnSignal, StopTraining


class SaveAllIfPreempted:
    """Adapts Orbit's `SaveCheckpointIfPreempted` to calls between updates and to our way of ending a run.

    The signal comes to one process; the handler lets all of them agree on an update and save there. A process that
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
        """Takes over the handling of SIGTERM from `stop`, whose time limit stays in force.

        Args:
            cluster_resolver: Resolver of the strategy.
            manager: Checkpoint manager of this process. It restores once more, to the same values, and its checkpoints
                get the handler's variable, see `engine.checkpointing.compatibility.BOOKKEEPING`.
            global_step: Number of updates done; the number of the checkpoint.
            stop: Records the signal for the exit status.
            any_worker: Tells all workers whether a flag is set on any of them, see `cluster.AnyWorker`.
        """
        self._stop = stop
        self._number = signal.SIGTERM
        self._action = orbit.actions.SaveCheckpointIfPreempted(cluster_resolver, manager, checkpoint_number=global_step)
        self._any_worker = any_worker
        self._has_signal = False
        self._their_handler = signal.signal(signal.SIGTERM, self._note)
        # Ctrl-C and a closed terminal must not stop one process alone either. SIGHUP under nohup stays ignored.
        signal.signal(signal.SIGINT, self._pass_on)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._pass_on)

    def __call__(self, output: Any = None) -> None:
        """Saves and raises StopTraining at the update that the processes have agreed on."""
        try:
            self._action(output)
        except SystemExit as leaving:
            # The handler ends a process like this, with a status for its platform.
            raise self._leaving() from leaving

    def between_batches(self) -> None:
        """Raises StopTraining after the same evaluation batch in all processes, if one of them has a signal.

        The handler's own agreement counts updates, of which an evaluation has none, and may take too long.
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
