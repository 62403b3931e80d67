"""Compares the precision and the speed of the CTC loss with TensorFlow's two, against float64.

    python -m benchmarks.ctc_error

Logits are random; a larger `scale` makes worse guesses and a larger loss. Results: docs/results/0141.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from models.ctc import loss as ctc

# Frames and labels of a row and the vocabulary: 2 s, 5 s and, the longest, 15.4 s (246,000 samples) of fast and of slow
# speech; words or characters of Chinese.
SIZES = ((99, 25, 32), (249, 60, 32), (768, 60, 32), (768, 200, 32), (300, 60, 10_000))
SCALES = (0.1, 1.0, 3.0, 30.0, 100.0)
# Rows, frames, labels and vocabulary of the timed case.
BATCHES = ((4, 60, 10, 32), (16, 150, 30, 32), (1, 768, 200, 32), (8, 768, 200, 32), (8, 200, 60, 3000))


def oracle(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns loss and gradient of one row in float64, by forward and backward recursion over its states.

    Args:
        logits: [F, V].
        labels: Integers [L], none of them 0, the blank.

    Returns:
        The loss in nats, and its gradient [F, V].
    """
    log_probs = logits.astype(np.float64)
    log_probs = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    # A label may follow the previous label without a blank between them unless they are equal.
    may_skip = np.append([False, False], (states[2:] != 0) & (states[2:] != states[:-2]))[: len(states)]
    forward = _recursion(log_probs[:, states], may_skip)
    # The mirror image, from the last state backwards, with the same skips in reverse.
    mirrored = np.append([False, False], may_skip[:1:-1])[: len(states)]
    backward = _recursion(log_probs[::-1, states[::-1]], mirrored)[::-1, ::-1]
    total = np.logaddexp.reduce(forward[-1, -2:])
    # Both recursions include the frame's own probability; where that is 0, so is the posterior.
    own = log_probs[:, states]
    share = np.where(own > -np.inf, np.exp(forward + backward - np.where(own > -np.inf, own, 0.0) - total), 0.0)
    occupancy = np.zeros_like(log_probs)
    for state, token in enumerate(states):
        occupancy[:, token] += share[:, state]
    return -total, np.exp(log_probs) - occupancy


def _recursion(log_probs: np.ndarray, may_skip: np.ndarray) -> np.ndarray:
    """Returns the log-probability of all paths to each state, [F, S], that start in one of the first two."""
    found = np.full_like(log_probs, -np.inf)
    found[0, :2] = log_probs[0, :2]
    for frame in range(1, len(log_probs)):
        before = found[frame - 1]
        step = np.append([-np.inf], before[:-1])
        skip = np.where(may_skip, np.append([-np.inf, -np.inf], before[:-2])[: len(before)], -np.inf)
        found[frame] = np.logaddexp(np.logaddexp(before, step), skip) + log_probs[frame]
    return found


def ours(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes our loss of full rows, [B], from logits [B, F, V] and labels [B, L]."""
    return ctc.ctc_loss(logits, *_lengths(logits, labels))


def sparse(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes the loss with TensorFlow's CPU kernel; no label is 0."""
    frames, _, _ = _lengths(logits, labels)
    return tf.nn.ctc_loss(tf.sparse.from_dense(labels), logits, None, frames, logits_time_major=False, blank_index=0)


def dense(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes the loss with TensorFlow's recursion of ordinary operations."""
    frames, _, num_labels = _lengths(logits, labels)
    return tf.nn.ctc_loss(labels, logits, num_labels, frames, logits_time_major=False, blank_index=0)


KINDS = {"ours": ours, "sparse": sparse, "dense": dense}


def _lengths(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    num_rows = labels.shape[0]
    return tf.fill([num_rows], logits.shape[1]), labels, tf.fill([num_rows], labels.shape[1])


def make_batch(num_rows: int, num_frames: int, num_labels: int, vocab_size: int, scale: float) -> tuple:
    """Makes random logits and labels."""
    rng = np.random.default_rng(num_frames + num_labels)
    logits = (scale * rng.normal(size=(num_rows, num_frames, vocab_size))).astype(np.float32)
    return tf.constant(logits), tf.constant(rng.integers(1, vocab_size, (num_rows, num_labels)).astype(np.int32))


def with_gradient(loss_fn: Callable[..., tf.Tensor], *, jit_compile: bool = False) -> Callable[..., tuple]:
    """Returns a graph function from (logits, labels) to (losses, gradient of their sum)."""

    @tf.function(autograph=False, jit_compile=jit_compile)
    def run(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss_fn(logits, labels)
        return losses, tape.gradient(losses, logits)

    return run


def measure(num_frames: int, num_labels: int, vocab_size: int, scale: float) -> dict[str, float]:
    """Returns the loss of one random row, and the relative errors of loss and gradient of each implementation."""
    logits, labels = make_batch(1, num_frames, num_labels, vocab_size, scale)
    loss, gradient = oracle(logits[0].numpy(), labels[0].numpy())
    row = {"loss": loss}
    for name, loss_fn in KINDS.items():
        losses, found = with_gradient(loss_fn)(logits, labels)
        row[name] = float(np.linalg.norm(found[0].numpy() - gradient) / np.linalg.norm(gradient))
        row[f"{name} loss"] = abs(float(losses[0]) / loss - 1.0)
    return row


def milliseconds(loss_fn: Callable[..., tf.Tensor], batch: tuple, *, jit_compile: bool = False) -> float:
    """Returns the time of loss and gradient, the fastest of nine calls, which other jobs disturb least."""
    run, times = with_gradient(loss_fn, jit_compile=jit_compile), []
    run(*batch)
    for _ in range(9):
        start = time.perf_counter()
        run(*batch)[1].numpy()
        times.append(1000.0 * (time.perf_counter() - start))
    return min(times)


if __name__ == "__main__":
    names = [*KINDS, *(f"{name} loss" for name in KINDS)]
    print("| frames | labels | tokens | scale | loss, nats |", " | ".join(names), "|")
    print("|---" * 11 + "|")
    for size in SIZES:
        for scale in SCALES:
            found = measure(*size, scale)
            errors = " | ".join(f"{found[name]:.1e}" for name in names)
            print("|", " | ".join(map(str, size)), f"| {scale} | {found['loss']:.0f} | {errors} |", flush=True)
    print("\n| rows | frames | labels | tokens | ours, ms | ours, by XLA | sparse | dense |")
    print("|---" * 8 + "|")
    for size in BATCHES:
        batch = make_batch(*size, scale=1.0)
        times = [milliseconds(ours, batch), milliseconds(ours, batch, jit_compile=True)]
        times += [milliseconds(sparse, batch), milliseconds(dense, batch)]
        print("|", " | ".join(map(str, size)), "|", " | ".join(f"{x:.1f}" for x in times), "|", flush=True)
