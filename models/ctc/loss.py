"""CTC loss with its gradient, one recursion for every device, and the test of which rows can be aligned at all."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# The log of a probability of zero: finite, so that no difference of two of them is NaN, and in the range of float32,
# because a TPU makes a float64 of two float32.
_IMPOSSIBLE = -1e30


def feasible(labels: tf.Tensor, label_lengths: tf.Tensor, logit_lengths: tf.Tensor) -> tf.Tensor:
    """Returns bool [B]: whether the frames can hold the labels (labels + adjacent repeats <= frames).

    Rows without frames are infeasible as well.

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


def ctc_loss(
    logits: tf.Tensor,
    logit_lengths: tf.Tensor,
    labels: tf.Tensor,
    label_lengths: tf.Tensor,
    *,
    blank_id: int = 0,
) -> tf.Tensor:
    """Negative log probability of each row's labels (Graves et al. 2006, https://doi.org/10.1145/1143844.1143891).

    As exact as float32 logits allow, whatever the loss (docs/decisions/0070). Runs on any device; XLA compiles it where
    shapes are static.

    Args:
        logits: [B, F, V], before softmax; computed in float32 whatever their dtype.
        logit_lengths: Integers [B], valid frames.
        labels: Integers [B, L], anything past a row's length.
        label_lengths: Integers [B].
        blank_id: Index of the blank.

    Returns:
        float32 [B], in nats; 0 with zero gradient for rows that are not `feasible`, infinite where the logits leave no
        way (a needed one is -inf), NaN where one of a valid frame is.
    """
    logits = tf.cast(logits, tf.float32)
    labels, label_lengths = tf.cast(labels, tf.int32), tf.cast(label_lengths, tf.int32)
    is_feasible = feasible(labels, label_lengths, logit_lengths)
    is_frame = tf.sequence_mask(logit_lengths, tf.shape(logits)[1]) & is_feasible[:, tf.newaxis]
    # What does not count is replaced, not multiplied by 0: it may be infinite, and its labels may be no tokens.
    logits = tf.where(is_frame[:, :, tf.newaxis], logits, 0.0)
    label_lengths = tf.where(is_feasible, label_lengths, 0)
    labels = tf.where(tf.sequence_mask(label_lengths, tf.shape(labels)[1]), labels, blank_id)

    # The states of a row: blank, label, blank, label, ..., blank.
    tokens = tf.reshape(tf.stack([tf.zeros_like(labels) + blank_id, labels], axis=2), [tf.shape(labels)[0], -1])
    tokens = tf.pad(tokens, [[0, 0], [0, 1]], constant_values=blank_id)
    # A label may follow the one before it without a blank between, unless it is the same.
    two_before = tf.pad(tokens, [[0, 0], [2, 0]], constant_values=blank_id)[:, :-2]
    skip_score = tf.where((tokens != blank_id) & (tokens != two_before), _wide(0.0), _IMPOSSIBLE)
    state, last = tf.range(tf.shape(tokens)[1]), 2 * label_lengths[:, tf.newaxis]
    is_last = (state == last) | ((state == last - 1) & (last > 0))

    # Scores are relative to the likeliest token of the frame, which cancels out: no digit of a logit is lost.
    highest = tf.stop_gradient(tf.reduce_max(logits, axis=2, keepdims=True))
    scores = tf.cast(tf.gather(logits, tokens, axis=2, batch_dims=1), tf.float64) - tf.cast(highest, tf.float64)
    scores = tf.maximum(scores, _IMPOSSIBLE)
    of_labels = _sum_paths(tf.transpose(scores, [1, 0, 2]), skip_score, tf.transpose(is_frame), is_last)
    of_all = tf.reduce_sum(tf.where(is_frame, tf.cast(_log_normalizer(logits), tf.float64), 0.0), axis=1)
    losses = tf.where(of_labels < _IMPOSSIBLE / 2, _wide(float("inf")), of_all - of_labels)
    return tf.where(is_feasible, tf.cast(losses, tf.float32), 0.0)


@tf.custom_gradient
def _log_normalizer(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Log of the sum of exp(logits) over the likeliest one's, [B, F]; its gradient is the softmax.

    Where a model is sure it is close to 0, and exact there: the likeliest token's 1 is not part of what is rounded.
    """
    highest = tf.reduce_max(logits, axis=2, keepdims=True)
    is_highest, exps = logits == highest, tf.exp(logits - highest)
    ties = tf.reduce_sum(tf.cast(is_highest, tf.float32), axis=2, keepdims=True) - 1.0
    others = tf.reduce_sum(tf.where(is_highest, 0.0, exps), axis=2, keepdims=True) + ties
    return tf.math.log1p(others)[:, :, 0], lambda upstream: upstream[:, :, tf.newaxis] * exps / (1.0 + others)


# A function, so that its loops are graphs and not Python where nothing around it is a graph.
@tf.function(autograph=False)
@tf.custom_gradient
def _sum_paths(
    scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor, is_last: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """Log of the summed probability of all ways through a row's states, and as gradient each state's share of it.

    A path goes on by staying, by one state, or by two where `skip_score` lets it. Scores of paths are float64: they are
    as large as the loss, and what counts is how they differ. Their exponentials are of differences: float32 will do.

    Args:
        scores: float64 [F, B, S], log probability of a frame's token of each state.
        skip_score: float64 [B, S], 0 where the state may be entered from the one two before it, else _IMPOSSIBLE.
        is_frame: bool [F, B], frames that count; all others come after them.
        is_last: bool [B, S], states in which a path may end.

    Returns:
        float64 [B], and the function for its gradient.
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
        # Of the paths that are in a state, the part that came from each of the three it can have come from. Backwards
        # from the last frame these parts of parts are all that is needed: numbers from 0 to 1, which float32 holds.
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
    """Scores of staying in each state, of entering it from the one before, and from the one before that, [..., S]."""
    padding = [[0, 0]] * (states.shape.rank - 1)
    padded = tf.pad(states, [*padding, [2, 0]], constant_values=_wide(_IMPOSSIBLE))
    return states, padded[..., 1:-1], padded[..., :-2] + skip_score


def _log_sum_exp(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
    """Log of the sum of three exponentials; the greatest one is not part of what is rounded."""
    greater, less = tf.maximum(a, b), tf.minimum(a, b)
    greatest, middle = tf.maximum(greater, c), tf.maximum(less, tf.minimum(greater, c))
    others = _exp(middle - greatest) + _exp(tf.minimum(less, c) - greatest)
    return greatest + tf.cast(tf.math.log1p(others), tf.float64)


def _exp(difference: tf.Tensor) -> tf.Tensor:
    return tf.exp(tf.cast(difference, tf.float32))


def _wide(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)
