"""How training does, in figures that cost next to nothing and in words: blanks, confidence, what did not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

# What `frame_sums` returns, in its order.
FRAME_SUMS = ("num_frames", "num_blank_frames", "confidence_sum", "num_labels")


def frame_sums(
    logits: tf.Tensor, num_frames: tf.Tensor, label_lengths: tf.Tensor, valid: tf.Tensor, *, blank_id: int = 0
) -> tf.Tensor:
    """Sums over the frames of rows that have a loss; graph, any context.

    Args:
        logits: float32 [B, F, V].
        num_frames: Integers [B], valid frames.
        label_lengths: Integers [B].
        valid: float32 [B], positive for rows that count.
        blank_id: Index of the blank.

    Returns:
        float32 [4]: frames, frames whose likeliest token is the blank, the likeliest token's probability summed, and
        the labels that these frames should become.
    """
    counts = tf.sequence_mask(num_frames, tf.shape(logits)[1]) & (valid > 0)[:, tf.newaxis]
    best = tf.reduce_max(logits, axis=-1)
    is_blank = logits[:, :, blank_id] >= best
    confidence = tf.exp(best - tf.reduce_logsumexp(logits, axis=-1))
    return tf.stack(
        [
            tf.reduce_sum(tf.cast(counts, tf.float32)),
            tf.reduce_sum(tf.cast(counts & is_blank, tf.float32)),
            tf.reduce_sum(tf.where(counts, confidence, 0.0)),
            tf.reduce_sum(tf.where(valid > 0, tf.cast(label_lengths, tf.float32), 0.0)),
        ]
    )


def describe(figures: Mapping[str, Any]) -> str:
    """Returns one line about a train loop.

    Args:
        figures: As `Trainer.train_loop_end` returns them.
    """
    num_rows, num_zeroed = int(figures["num_rows"]), int(figures["num_infeasible"])
    parts = [
        f"blank in {100 * figures['blank_share']:.1f} % of frames",
        f"mean confidence {figures['mean_confidence']:.2f}",
        f"gradient norm {figures['gradient_norm']:.3g}",
        f"{num_zeroed} of {num_rows} rows zeroed" + (" (more text than their frames can hold)" if num_zeroed else ""),
    ]
    if figures["num_skipped_updates"]:
        num_skipped = int(figures["num_skipped_updates"])
        parts.append(f"{num_skipped} updates skipped (loss or gradient not finite, or no row with a loss)")
    return ", ".join(parts)


class HealthLog:
    """Train action: the line of `describe` in the log."""

    def __init__(self, *, global_step: tf.Variable) -> None:
        """Keeps its argument."""
        self._global_step = global_step

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Logs one line."""
        logging.info("health at update %d: %s", int(self._global_step.numpy()), describe(output))
