"""CTC loss and its gradient in one recursion for all devices, and the check of which rows can be aligned."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Log of a zero probability: finite, so that differences are not NaN, and within float32, because a TPU emulates float64
# with two float32.
_IMPOSSIBLE = -1e30


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
) -> tf.Tensor:
    """Returns the CTC loss of each row (Graves et al. 2006, https://doi.org/10.1145/1143844.1143891).

    The result is as exact as float32 logits allow, also for large losses (docs/decisions/0070). It runs on any device,
    and XLA compiles it where shapes are static.

    Args:
        logits: [B, F, V], before softmax; cast to float32.
        logit_lengths: Integers [B], valid frames.
        labels: Integers [B, L]; values past a row's length are ignored.
        label_lengths: Integers [B].
        blank_id: Index of the blank.

    Returns:
        Negative log-probabilities in nats, float32 [B]: 0 with zero gradient for rows that are not `feasible`, infinite
        where -inf logits leave no path, NaN where a logit of a valid frame is NaN.
    """
    logits = tf.cast(logits, tf.float32)
    labels, label_lengths = tf.cast(labels, tf.int32), tf.cast(label_lengths, tf.int32)
    is_feasible = feasible(labels, label_lengths, logit_lengths)
    is_frame = tf.sequence_mask(logit_lengths, tf.shape(logits)[1]) & is_feasible[:, tf.newaxis]
    # Replace what does not count instead of multiplying by 0: logits may be infinite, and labels may be invalid ids.
    logits = tf.where(is_frame[:, :, tf.newaxis], logits, 0.0)
    label_lengths = tf.where(is_feasible, label_lengths, 0)
    labels = tf.where(tf.sequence_mask(label_lengths, tf.shape(labels)[1]), labels, blank_id)

    # The states of a row: blank, label, blank, label, ..., blank.
    tokens = tf.reshape(tf.stack([tf.zeros_like(labels) + blank_id, labels], axis=2), [tf.shape(labels)[0], -1])
    tokens = tf.pad(tokens, [[0, 0], [0, 1]], constant_values=blank_id)
    # A label may follow the previous label without a blank between them unless they are equal.
    two_before = tf.pad(tokens, [[0, 0], [2, 0]], constant_values=blank_id)[:, :-2]
    skip_score = tf.where((tokens != blank_id) & (tokens != two_before), _wide(0.0), _IMPOSSIBLE)
    state, last = tf.range(tf.shape(tokens)[1]), 2 * label_lengths[:, tf.newaxis]
    is_last = (state == last) | ((state == last - 1) & (last > 0))

    # Scores are relative to the highest logit of the frame, which cancels out, so no digit of a logit is lost.
    highest = tf.stop_gradient(tf.reduce_max(logits, axis=2, keepdims=True))
    scores = tf.cast(tf.gather(logits, tokens, axis=2, batch_dims=1), tf.float64) - tf.cast(highest, tf.float64)
    scores = tf.maximum(scores, _IMPOSSIBLE)
    of_labels = _sum_paths(tf.transpose(scores, [1, 0, 2]), skip_score, tf.transpose(is_frame), is_last)
    of_all = tf.reduce_sum(tf.where(is_frame, tf.cast(_log_normalizer(logits), tf.float64), 0.0), axis=1)
    losses = tf.where(of_labels < _IMPOSSIBLE / 2, _wide(float("inf")), of_all - of_labels)
    return tf.where(is_feasible, tf.cast(losses, tf.float32), 0.0)


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


# A tf.function, so that its loops run as a graph when the caller runs eagerly.
@tf.function(autograph=False)
@tf.custom_gradient
def _sum_paths(
    scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor, is_last: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """Returns the log of the summed probability of all paths; the gradient is the posterior of each state.

    A path stays in a state, moves on by one, or moves on by two where `skip_score` allows it. Path scores are float64,
    because they are as large as the loss while only their differences matter; exponentials of differences need only
    float32.

    Args:
        scores: float64 [F, B, S], log-probability of the token of each state in each frame.
        skip_score: float64 [B, S], 0 where a path may enter the state from two states before, else _IMPOSSIBLE.
        is_frame: bool [F, B], True for valid frames, which come first.
        is_last: bool [B, S], True for states in which a path may end.

    Returns:
        float64 [B], and the gradient function.
    """
    before_first = tf.where(tf.range(tf.shape(scores)[2]) == 0, _wide(0.0), _IMPOSSIBLE)
    before_first = tf.broadcast_to(before_first, tf.shape(scores)[1:])

    def enter(so_far: tf.Tensor, frame: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        frame_scores, counts = frame
        entered = frame_scores + _log_sum_exp(*_ways(so_far, skip_score))
        return tf.where(counts[:, tf.newaxis], entered, so_far)

    after = tf.scan(enter, (scores, is_frame), initializer=before_first)
    states = tf.concat([before_first[tf.newaxis], after], axis=0)
    total = tf.reduce_logsumexp(tf.where(is_last, states[-1], _IMPOSSIBLE), axis=1)

    def gradient(upstream: tf.Tensor) -> tuple:
        # The fractions of a state's paths that stayed, stepped and skipped into it. The backward recursion needs only
        # these numbers from 0 to 1, which float32 holds.
        rest = scores - states[1:]
        stayed, stepped, skipped = (_exp(way + rest) for way in _ways(states[:-1], skip_score))

        def leave(share: tf.Tensor, frame: tuple[tf.Tensor, ...]) -> tf.Tensor:
            stayed, stepped, skipped, counts = frame
            before = share * stayed
            before += tf.pad(share * stepped, [[0, 0], [0, 1]])[:, 1:]
            before += tf.pad(share * skipped, [[0, 0], [0, 2]])[:, 2:]
            return tf.where(counts[:, tf.newaxis], before, share)

        last = _exp(tf.where(is_last, states[-1] - total[:, tf.newaxis], _IMPOSSIBLE))
        shares = tf.scan(leave, (stayed, stepped, skipped, is_frame), initializer=last, reverse=True)
        shares = tf.concat([shares, last[tf.newaxis]], axis=0)[1:]
        shares = tf.where(is_frame[:, :, tf.newaxis], tf.cast(shares, tf.float64), 0.0)
        return shares * upstream[:, tf.newaxis], None, None, None

    return total, gradient


def _ways(states: tf.Tensor, skip_score: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the scores, [..., S], of entering each state from itself, from one before and from two before."""
    padding = [[0, 0]] * (states.shape.rank - 1)
    padded = tf.pad(states, [*padding, [2, 0]], constant_values=_wide(_IMPOSSIBLE))
    return states, padded[..., 1:-1], padded[..., :-2] + skip_score


def _log_sum_exp(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
    """Returns the log of the sum of three exponentials, without rounding the greatest one."""
    greater, less = tf.maximum(a, b), tf.minimum(a, b)
    greatest, middle = tf.maximum(greater, c), tf.maximum(less, tf.minimum(greater, c))
    others = _exp(middle - greatest) + _exp(tf.minimum(less, c) - greatest)
    return greatest + tf.cast(tf.math.log1p(others), tf.float64)


def _exp(difference: tf.Tensor) -> tf.Tensor:
    return tf.exp(tf.cast(difference, tf.float32))


def _wide(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)
