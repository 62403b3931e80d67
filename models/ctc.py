"""CTC loss, one function over two back ends, and the test of which rows can be aligned at all."""

from __future__ import annotations

import tensorflow as tf

from models.devices import on_cpu


def feasible(labels: tf.Tensor, label_lengths: tf.Tensor, logit_lengths: tf.Tensor) -> tf.Tensor:
    """Returns bool [B]: whether the frames can hold the labels (labels + adjacent repeats <= frames).

    TensorFlow's kernels give infeasible rows a large finite loss and finite gradients, so no test of the result finds
    them. Rows without frames are infeasible as well.

    Args:
        labels: Integers [B, L].
        label_lengths: Integers [B].
        logit_lengths: Integers [B], frames.
    """
    label_lengths = tf.cast(label_lengths, tf.int32)
    logit_lengths = tf.cast(logit_lengths, tf.int32)
    is_inner = tf.sequence_mask(tf.maximum(label_lengths - 1, 0), tf.maximum(tf.shape(labels)[1] - 1, 0))
    repeats = tf.reduce_sum(tf.cast((labels[:, 1:] == labels[:, :-1]) & is_inner, tf.int32), axis=1)
    return (label_lengths + repeats <= logit_lengths) & (logit_lengths > 0)


def choose_backend() -> str:
    """Returns "sparse" where only CPUs are visible, else "dense" (what accelerators can run)."""
    return "sparse" if on_cpu() else "dense"


def ctc_loss(
    logits: tf.Tensor,
    logit_lengths: tf.Tensor,
    labels: tf.Tensor,
    label_lengths: tf.Tensor,
    *,
    blank_id: int = 0,
    backend: str = "",
) -> tf.Tensor:
    """Negative log probability of each row's labels (Graves et al. 2006, https://doi.org/10.1145/1143844.1143891).

    Args:
        logits: [B, F, V], before softmax; computed in float32 whatever their dtype.
        logit_lengths: Integers [B], valid frames.
        labels: Integers [B, L], anything past a row's length.
        label_lengths: Integers [B].
        blank_id: Index of the blank.
        backend: "sparse" (CPU kernel, some 70 times faster there), "dense" (any device, XLA), "" = by device.

    Returns:
        float32 [B], in nats; 0 with zero gradient for rows that are not `feasible`.

    Raises:
        ValueError: If the back end is unknown.
    """
    backend = backend or choose_backend()
    if backend not in ("sparse", "dense"):
        raise ValueError(f"ctc backend must be 'sparse' or 'dense', got {backend!r}")
    logits = tf.cast(logits, tf.float32)
    labels = tf.cast(labels, tf.int32)
    is_feasible = feasible(labels, label_lengths, logit_lengths)
    # Infeasible rows become empty ones over at least one frame, which both back ends accept; they are zeroed below.
    label_lengths = tf.where(is_feasible, tf.cast(label_lengths, tf.int32), 0)
    logit_lengths = tf.maximum(tf.cast(logit_lengths, tf.int32), 1)
    loss_fn = _sparse_loss if backend == "sparse" else _dense_loss
    return tf.where(is_feasible, loss_fn(logits, logit_lengths, labels, label_lengths, blank_id), 0.0)


def _dense_loss(
    logits: tf.Tensor, logit_lengths: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor, blank_id: int
) -> tf.Tensor:
    """The recursion in TensorFlow's own operations: any device, XLA, TPU."""
    return tf.nn.ctc_loss(
        labels, logits, label_lengths, logit_lengths, logits_time_major=False, blank_index=blank_id
    )


def _sparse_loss(
    logits: tf.Tensor, logit_lengths: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor, blank_id: int
) -> tf.Tensor:
    """The CPU kernel. It refuses rows without labels, so these get a stand-in label and their loss by hand."""
    is_empty = label_lengths == 0
    stand_in = 1 if blank_id == 0 else 0
    kernel_labels = tf.where(is_empty[:, tf.newaxis], stand_in, labels)
    is_label = tf.sequence_mask(tf.maximum(label_lengths, 1), tf.shape(labels)[1])
    sparse = tf.SparseTensor(
        tf.where(is_label), tf.boolean_mask(kernel_labels, is_label), tf.cast(tf.shape(labels), tf.int64)
    )
    losses = tf.nn.ctc_loss(sparse, logits, None, logit_lengths, logits_time_major=False, blank_index=blank_id)
    # Without labels the only path is blanks throughout.
    blank_log_probs = tf.nn.log_softmax(logits)[:, :, blank_id]
    is_frame = tf.sequence_mask(logit_lengths, tf.shape(logits)[1], dtype=tf.float32)
    return tf.where(is_empty, -tf.reduce_sum(blank_log_probs * is_frame, axis=1), losses)
