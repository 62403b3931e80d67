"""How exact are the gradients of the two CTC back ends? Both against float64, over losses as large as in training.

    python -m benchmarks.ctc_error

Random logits, of which a larger `scale` makes worse guesses and a larger loss. docs/results/0041 keeps what it said.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models import ctc

VOCAB_SIZE = 32
# Frames and labels of a row: 2 s, 5 s and, the longest, 15.4 s (246,000 samples) of fast and of slow speech.
SIZES = ((99, 25), (249, 60), (768, 60), (768, 200))
SCALES = (0.1, 1.0, 3.0)


def oracle(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient of one row in float64, by the forward and backward recursions over its states.

    Args:
        logits: [F, V].
        labels: Integers [L], none of them 0, the blank.

    Returns:
        Nats, and d loss / d logits, [F, V].
    """
    log_probs = logits.astype(np.float64)
    log_probs = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    # A label may follow the one before it without a blank between, unless it is the same.
    may_skip = np.append([False, False], (states[2:] != 0) & (states[2:] != states[:-2]))[: len(states)]
    forward = _recursion(log_probs[:, states], may_skip)
    # The mirror image: from the last state backwards, with the same skips seen from their other end.
    mirrored = np.append([False, False], may_skip[:1:-1])[: len(states)]
    backward = _recursion(log_probs[::-1, states[::-1]], mirrored)[::-1, ::-1]
    total = np.logaddexp.reduce(forward[-1, -2:])
    # Both recursions count the frame's own probability.
    share = np.exp(forward + backward - log_probs[:, states] - total)
    occupancy = np.zeros_like(log_probs)
    for state, token in enumerate(states):
        occupancy[:, token] += share[:, state]
    return -total, np.exp(log_probs) - occupancy


def _recursion(log_probs: np.ndarray, may_skip: np.ndarray) -> np.ndarray:
    """Log probability of all ways to each state, [F, S] -> [F, S]; they begin in one of the first two."""
    found = np.full_like(log_probs, -np.inf)
    found[0, :2] = log_probs[0, :2]
    for frame in range(1, len(log_probs)):
        before = found[frame - 1]
        step = np.append([-np.inf], before[:-1])
        skip = np.where(may_skip, np.append([-np.inf, -np.inf], before[:-2])[: len(before)], -np.inf)
        found[frame] = np.logaddexp(np.logaddexp(before, step), skip) + log_probs[frame]
    return found


def measure(num_frames: int, num_labels: int, scale: float) -> dict[str, float]:
    """Loss of one random row, and by back end the norm of the gradient's error over that of the gradient."""
    rng = np.random.default_rng(num_frames + num_labels)
    logits = (scale * rng.normal(size=(num_frames, VOCAB_SIZE))).astype(np.float32)
    labels = rng.integers(1, VOCAB_SIZE, num_labels).astype(np.int32)
    loss, gradient = oracle(logits, labels)
    row = {"loss": loss}
    for backend in ("sparse", "dense"):
        x = tf.constant(logits[np.newaxis])
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = ctc.ctc_loss(x, [num_frames], tf.constant(labels[np.newaxis]), [num_labels], backend=backend)
        error = tape.gradient(losses, x).numpy()[0] - gradient
        row[backend] = float(np.linalg.norm(error) / np.linalg.norm(gradient))
        row[f"{backend} loss"] = abs(float(losses[0]) / loss - 1.0)
    return row


if __name__ == "__main__":
    print("| frames | labels | scale | loss, nats | gradient, sparse | gradient, dense | loss, sparse | loss, dense |")
    print("|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        for scale in SCALES:
            found = measure(*size, scale)
            errors = [f"{found[name]:.1e}" for name in ("sparse", "dense", "sparse loss", "dense loss")]
            print(f"| {size[0]} | {size[1]} | {scale} | {found['loss']:.0f} | {' | '.join(errors)} |")
