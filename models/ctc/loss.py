"""CTC loss and its gradient on all devices, with several back ends, and the check of which rows can be aligned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from common.xla_notice import drop_compilers_first_notice
from models.ctc import cudnn
from models.ctc.blocks import sum_paths_in_blocks
from models.ctc.paths import IMPOSSIBLE, sum_paths, wide
from models.ops.devices import device_type

# What computes the loss; docs/decisions/0011 compares them.
BACKENDS = (
    "scan",  # our recursion over single frames
    "host",  # the same on the CPU beside the accelerator
    "xla",  # the same, compiled by XLA
    "blocks",  # our recursion over blocks of frames, compiled by XLA
    "cudnn",  # cuDNN's kernel on a GPU
)
_AUTO = {"CPU": "scan", "GPU": "blocks", "TPU": "scan"}


def feasible(labels: tf.Tensor, label_lengths: tf.Tensor, logit_lengths: tf.Tensor) -> tf.Tensor:
    """Returns bool [B], True where the frames can hold the labels (labels + adjacent repeats <= frames).

    Rows without frames are infeasible.

    Args:
        labels: Integers [B, L].
        label_lengths: Integers [B].
        logit_lengths: Integers [B], valid frames.
    """
    label_lengths = tf.cast(label_lengths, tf.int32)
    logit_lengths = tf.cast(logit_lengths, tf.int32)
    is_inner = tf.sequence_mask(tf.maximum(label_lengths - 1, 0), tf.maximum(tf.shape(labels)[1] - 1, 0))
    repeats = tf.reduce_sum(tf.cast((labels[:, 1:] == labels[:, :-1]) & is_inner, tf.int32), axis=1)
    return (label_lengths + repeats <= logit_lengths) & (logit_lengths > 0)


def ctc_loss(
    logits: tf.Tensor,
    logit_lengths: tf.Tensor,
    labels: tf.Tensor,
    label_lengths: tf.Tensor,
    *,
    blank_id: int = 0,
    backend: str = "auto",
) -> tf.Tensor:
    """Returns the CTC loss of each row (Graves et al. 2006, https://doi.org/10.1145/1143844.1143891).

    The result is as exact as float32 logits allow, also for large losses (docs/decisions/0070), except with "cudnn".

    Args:
        logits: [B, F, V], before softmax; cast to float32.
        logit_lengths: Integers [B], valid frames.
        labels: Integers [B, L]; values past a row's length are ignored.
        label_lengths: Integers [B].
        blank_id: Index of the blank.
        backend: One of `BACKENDS`; "auto" chooses one for the kind of device. "scan" runs on any device, and so do
            "xla" and "blocks" where shapes are static. "cudnn" takes "blocks" for a batch with longer labels than it
            can hold.

    Returns:
        Negative log-probabilities in nats, float32 [B]: 0 with zero gradient for rows that are not `feasible`, infinite
        where -inf logits leave no path, NaN where a logit of a valid frame is NaN.

    Raises:
        ValueError: The back end is unknown.
    """
    backend = _AUTO[device_type()] if backend == "auto" else backend
    rows = tf.cast(logits, tf.float32), logit_lengths, tf.cast(labels, tf.int32), tf.cast(label_lengths, tf.int32)
    if backend == "scan":
        return _losses(*rows, blank_id=blank_id, sum_paths_fn=sum_paths)
    if backend not in _OTHERS:
        raise ValueError(f"CTC back end must be auto or one of {', '.join(BACKENDS)}, got {backend!r}")

    if backend != "host":
        drop_compilers_first_notice()

    @tf.custom_gradient
    def compute(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        # The caller's tape need not see inside: it would prepare for second derivatives, which takes thrice the time.
        losses, gradient = _OTHERS[backend](tf.stop_gradient(logits), *rows[1:], blank_id=blank_id)
        return losses, lambda upstream: upstream[:, tf.newaxis, tf.newaxis] * gradient

    return compute(rows[0])


def _losses(
    logits: tf.Tensor,
    logit_lengths: tf.Tensor,
    labels: tf.Tensor,
    label_lengths: tf.Tensor,
    *,
    blank_id: int,
    sum_paths_fn: Callable[..., tf.Tensor],
) -> tf.Tensor:
    """Returns the losses of `ctc_loss`; `sum_paths_fn` is `models.ctc.paths.sum_paths` or stands in for it."""
    is_feasible = feasible(labels, label_lengths, logit_lengths)
    logits, is_frame, labels, label_lengths = _without_padding(
        logits, logit_lengths, labels, label_lengths, is_feasible, blank_id
    )
    # The states of a row: blank, label, blank, label, ..., blank.
    tokens = tf.reshape(tf.stack([tf.zeros_like(labels) + blank_id, labels], axis=2), [tf.shape(labels)[0], -1])
    tokens = tf.pad(tokens, [[0, 0], [0, 1]], constant_values=blank_id)
    # A label may follow the previous label without a blank between them unless they are equal.
    two_before = tf.pad(tokens, [[0, 0], [2, 0]], constant_values=blank_id)[:, :-2]
    skip_score = tf.where((tokens != blank_id) & (tokens != two_before), wide(0.0), IMPOSSIBLE)
    state, last = tf.range(tf.shape(tokens)[1]), 2 * label_lengths[:, tf.newaxis]
    is_last = (state == last) | ((state == last - 1) & (last > 0))

    # Scores are relative to the highest logit of the frame, which cancels out, so no digit of a logit is lost.
    highest = tf.stop_gradient(tf.reduce_max(logits, axis=2, keepdims=True))
    scores = tf.cast(tf.gather(logits, tokens, axis=2, batch_dims=1), tf.float64) - tf.cast(highest, tf.float64)
    scores = tf.maximum(scores, IMPOSSIBLE)
    of_labels = sum_paths_fn(tf.transpose(scores, [1, 0, 2]), skip_score, tf.transpose(is_frame), is_last)
    of_all = tf.reduce_sum(tf.where(is_frame, tf.cast(_log_normalizer(logits), tf.float64), 0.0), axis=1)
    losses = tf.where(of_labels < IMPOSSIBLE / 2, wide(float("inf")), of_all - of_labels)
    return tf.where(is_feasible, tf.cast(losses, tf.float32), 0.0)


def _without_padding(
    logits: tf.Tensor,
    logit_lengths: tf.Tensor,
    labels: tf.Tensor,
    label_lengths: tf.Tensor,
    is_feasible: tf.Tensor,
    blank_id: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns logits, bool [B, F] of the frames that count, labels and their lengths; infeasible rows have none."""
    is_frame = tf.sequence_mask(logit_lengths, tf.shape(logits)[1]) & is_feasible[:, tf.newaxis]
    # Replace what does not count instead of multiplying by 0: logits may be infinite, and labels may be invalid ids.
    logits = tf.where(is_frame[:, :, tf.newaxis], logits, 0.0)
    label_lengths = tf.where(is_feasible, label_lengths, 0)
    labels = tf.where(tf.sequence_mask(label_lengths, tf.shape(labels)[1]), labels, blank_id)
    return logits, is_frame, labels, label_lengths


@tf.custom_gradient
def _log_normalizer(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns log(sum(exp(logits - highest logit))), [B, F]; its gradient is the softmax.

    It is close to 0 where the model is confident, and exact there because the highest logit's 1 is not rounded.
    """
    highest = tf.reduce_max(logits, axis=2, keepdims=True)
    is_highest, exps = logits == highest, tf.exp(logits - highest)
    ties = tf.reduce_sum(tf.cast(is_highest, tf.float32), axis=2, keepdims=True) - 1.0
    others = tf.reduce_sum(tf.where(is_highest, 0.0, exps), axis=2, keepdims=True) + ties
    return tf.math.log1p(others)[:, :, 0], lambda upstream: upstream[:, :, tf.newaxis] * exps / (1.0 + others)


def _with_gradient(logits: tf.Tensor, *rows: tf.Tensor, **options: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the losses, and the gradient of each row's, [B, F, V]."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = _losses(logits, *rows, **options)
    return losses, tape.gradient(losses, logits)


def _on_host(*rows: tf.Tensor, blank_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    # What is inside a function has no device of its own.
    sum_paths_fn = sum_paths if tf.executing_eagerly() else sum_paths.python_function
    with tf.device("CPU:0"):
        return _with_gradient(*map(tf.identity, rows), blank_id=blank_id, sum_paths_fn=sum_paths_fn)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _compiled(*rows: tf.Tensor, blank_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    return _with_gradient(*rows, blank_id=blank_id, sum_paths_fn=sum_paths)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _compiled_in_blocks(*rows: tf.Tensor, blank_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    return _with_gradient(*rows, blank_id=blank_id, sum_paths_fn=sum_paths_in_blocks)


def _by_cudnn(
    logits: tf.Tensor, logit_lengths: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor, *, blank_id: int
) -> tuple[tf.Tensor, tf.Tensor]:
    def kernel() -> tuple[tf.Tensor, tf.Tensor]:
        is_feasible = feasible(labels, label_lengths, logit_lengths)
        clean, is_frame, *clean_labels = _without_padding(
            logits, logit_lengths, labels, label_lengths, is_feasible, blank_id
        )
        num_frames = tf.reduce_sum(tf.cast(is_frame, tf.int32), axis=1)
        losses, gradient = cudnn.losses_and_gradients(clean, num_frames, *clean_labels, blank_id=blank_id)
        is_number = ~tf.reduce_any(tf.math.is_nan(clean), axis=[1, 2])
        return tf.where(is_number, losses, float("nan")), gradient

    if (labels.shape[1] or cudnn.MAX_LABELS + 1) <= cudnn.MAX_LABELS:
        return kernel()
    # The width of a bucket's labels is not static, and the rows of a batch may be shorter than it.
    return tf.cond(
        tf.reduce_max(label_lengths) <= cudnn.MAX_LABELS,
        kernel,
        lambda: _compiled_in_blocks(logits, logit_lengths, labels, label_lengths, blank_id=blank_id),
    )


_OTHERS = {"host": _on_host, "xla": _compiled, "blocks": _compiled_in_blocks, "cudnn": _by_cudnn}
