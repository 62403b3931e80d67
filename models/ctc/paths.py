"""Sums the probability of all CTC paths with a recursion over single frames, on any device."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Log of a zero probability: finite, so that differences are not NaN, and within float32, because a TPU emulates float64
# with two float32.
IMPOSSIBLE = -1e30


# A tf.function, so that its loops run as a graph when the caller runs eagerly.
@tf.function(autograph=False)
@tf.custom_gradient
def sum_paths(
    scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor, is_last: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """Returns the log of the summed probability of all paths; the gradient is the posterior of each state.

    A path stays in a state, moves on by one, or moves on by two where `skip_score` allows it. Path scores are float64,
    because they are as large as the loss while only their differences matter; exponentials of differences need only
    float32.

    Args:
        scores: float64 [F, B, S], log-probability of the token of each state in each frame.
        skip_score: float64 [B, S], 0 where a path may enter the state from two states before, else IMPOSSIBLE.
        is_frame: bool [F, B], True for valid frames, which come first.
        is_last: bool [B, S], True for states in which a path may end.

    Returns:
        float64 [B], and the gradient function.
    """
    before_first = tf.where(tf.range(tf.shape(scores)[2]) == 0, wide(0.0), IMPOSSIBLE)
    before_first = tf.broadcast_to(before_first, tf.shape(scores)[1:])

    def enter(so_far: tf.Tensor, frame: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        frame_scores, counts = frame
        entered = frame_scores + log_sum_exp(*ways(so_far, skip_score))
        return tf.where(counts[:, tf.newaxis], entered, so_far)

    after = tf.scan(enter, (scores, is_frame), initializer=before_first)
    states = tf.concat([before_first[tf.newaxis], after], axis=0)
    total = tf.reduce_logsumexp(tf.where(is_last, states[-1], IMPOSSIBLE), axis=1)

    def gradient(upstream: tf.Tensor) -> tuple:
        # The fractions of a state's paths that stayed, stepped and skipped into it. The backward recursion needs only
        # these numbers from 0 to 1, which float32 holds.
        rest = scores - states[1:]
        stayed, stepped, skipped = (narrow_exp(way + rest) for way in ways(states[:-1], skip_score))

        def leave(posterior: tf.Tensor, frame: tuple[tf.Tensor, ...]) -> tf.Tensor:
            stayed, stepped, skipped, counts = frame
            before = posterior * stayed
            before += tf.pad(posterior * stepped, [[0, 0], [0, 1]])[:, 1:]
            before += tf.pad(posterior * skipped, [[0, 0], [0, 2]])[:, 2:]
            return tf.where(counts[:, tf.newaxis], before, posterior)

        last = narrow_exp(tf.where(is_last, states[-1] - total[:, tf.newaxis], IMPOSSIBLE))
        posteriors = tf.scan(leave, (stayed, stepped, skipped, is_frame), initializer=last, reverse=True)
        posteriors = tf.concat([posteriors, last[tf.newaxis]], axis=0)[1:]
        posteriors = tf.where(is_frame[:, :, tf.newaxis], tf.cast(posteriors, tf.float64), 0.0)
        return posteriors * upstream[:, tf.newaxis], None, None, None

    return total, gradient


def ways(states: tf.Tensor, skip_score: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the scores, [..., S], of entering each state from itself, from one before and from two before."""
    padding = [[0, 0]] * (states.shape.rank - 1)
    padded = tf.pad(states, [*padding, [2, 0]], constant_values=wide(IMPOSSIBLE))
    return states, padded[..., 1:-1], padded[..., :-2] + skip_score


def log_sum_exp(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
    """Returns the log of the sum of three exponentials, without rounding the greatest one."""
    greater, less = tf.maximum(a, b), tf.minimum(a, b)
    greatest, middle = tf.maximum(greater, c), tf.maximum(less, tf.minimum(greater, c))
    others = narrow_exp(middle - greatest) + narrow_exp(tf.minimum(less, c) - greatest)
    return greatest + tf.cast(tf.math.log1p(others), tf.float64)


def narrow_exp(difference: tf.Tensor) -> tf.Tensor:
    """Returns exp of a float64 difference of scores, in float32, which is exact enough for it."""
    return tf.exp(tf.cast(difference, tf.float32))


def wide(value: float) -> tf.Tensor:
    """Returns a float64 constant."""
    return tf.constant(value, tf.float64)
