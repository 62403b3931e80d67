"""Shares the rows of a batch among the replicas of a strategy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


class ReplicaStep:
    """Runs a step of padded rows on all replicas at once and joins their results in the order of the rows.

    step = ReplicaStep(log_probs, strategy)
    found, num_frames = step(waveforms, lengths)
    """

    def __init__(
        self,
        step: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Traces nothing yet.

        Args:
            step: (waveforms float32 [B, T], lengths int32 [B]) -> results [B, ...] and numbers of frames [B].
            strategy: Strategy in whose scope the variables of the step were made.
        """
        self._strategy = strategy
        self._run = tf.function(lambda *rows: strategy.run(step, args=rows), reduce_retracing=True, autograph=False)

    def __call__(self, waveforms: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs float32 [B, T] of lengths int32 [B]."""
        num_replicas, num_rows = self._strategy.num_replicas_in_sync, len(waveforms)
        share = -(-num_rows // num_replicas)
        # Rows do not influence each other: some are run twice to give each replica as many.
        rows = np.arange(share * num_replicas) % num_rows

        def of_replica(values: np.ndarray) -> tf.Tensor:
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(values[rows.reshape(num_replicas, share)[context.replica_id_in_sync_group]])
            )

        results = self._run(of_replica(waveforms), of_replica(lengths))
        found, num_frames = (
            np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(result)])[:num_rows]
            for result in results
        )
        return found, num_frames
