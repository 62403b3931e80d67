"""Sums the probability of all CTC paths over blocks of frames, which XLA compiles to few kernels.

`models.ctc.paths.sum_paths` takes a step for every frame, and a step costs an accelerator several launches whatever its
size. Here all blocks of a row are computed at the same time, so that only the steps from block to block remain:

1. For each block, the scores of all paths through it, from each state before it to each state after it. A path moves on
   by at most two states a frame, so these are 3 scores for each state after the first frame of a block, 5 after the
   second, and in the end 2 * `BLOCK_FRAMES` + 1.
2. From block to block, the scores of all paths up to the end of each block.
3. Within each block, the scores after each of its frames.

The same problem backwards in time, with the states in reverse order, gives the paths that leave each state. Both
directions run together as twice as many rows (docs/decisions/0011).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # private; docs/decisions/0011 says why

from models.ctc.paths import IMPOSSIBLE, log_sum_exp, narrow_exp, ways, wide

# More frames make fewer kernels, but the first step does work in proportion.
BLOCK_FRAMES = 8


@tf.custom_gradient
def sum_paths_in_blocks(
    scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor, is_last: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """Returns the log of the summed probability of all paths, like `models.ctc.paths.sum_paths`.

    Args:
        scores: float64 [F, B, S], log-probability of the token of each state in each frame.
        skip_score: float64 [B, S], 0 where a path may enter the state from two states before, else IMPOSSIBLE.
        is_frame: bool [F, B], True for valid frames, which come first.
        is_last: bool [B, S], True for states in which a path may end.

    Returns:
        float64 [B], and the gradient function.
    """
    state = tf.range(tf.shape(scores)[2])
    num_frames = tf.reduce_sum(tf.cast(is_frame, tf.int32), axis=0)
    last = tf.reduce_max(tf.where(is_last, state, 0), axis=1)

    def mirror(x: tf.Tensor) -> tf.Tensor:
        """Reverses the valid frames and the states up to the last one of x [F, B, S]; undoes itself."""
        x = tf.reverse_sequence(x, num_frames, seq_axis=0, batch_axis=1)
        return tf.reverse_sequence(x, last + 1, seq_axis=2, batch_axis=1)

    # Mirrored, a skip enters the state that it left before: two states further from the end.
    is_skip = (state >= 2) & (state <= last[:, tf.newaxis])
    left = tf.where(is_skip, last[:, tf.newaxis] + 2 - state, 0)
    mirrored_skip = tf.where(is_skip, tf.gather(skip_score, left, axis=1, batch_dims=1), IMPOSSIBLE)
    states = _states_after_frames(
        tf.concat([scores, mirror(scores)], axis=1),
        tf.concat([skip_score, mirrored_skip], axis=0),
        tf.concat([is_frame, is_frame], axis=1),
    )
    entering, leaving = tf.split(states, 2, axis=1)
    total = tf.reduce_logsumexp(tf.where(is_last, entering[-1], IMPOSSIBLE), axis=1)
    # Both directions include the frame's own score. A row without any path has no posterior.
    counts = is_frame[:, :, tf.newaxis] & (state <= last[:, tf.newaxis]) & (total > IMPOSSIBLE / 2)[:, tf.newaxis]
    posterior = entering + mirror(leaving) - scores - total[:, tf.newaxis]
    posterior = tf.where(counts, narrow_exp(tf.where(counts, posterior, 0.0)), 0.0)
    # The posteriors of a frame add up to 1, but for what the recursion has rounded.
    posterior /= tf.maximum(tf.reduce_sum(posterior, axis=2, keepdims=True), 1e-30)
    posterior = tf.cast(posterior, tf.float64)
    return total, lambda upstream: (posterior * upstream[:, tf.newaxis], None, None, None)


def _states_after_frames(scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor) -> tf.Tensor:
    """Returns the score of all paths to each state after each frame, float64 [F, B, S]; see `sum_paths_in_blocks`."""
    num_frames, num_rows, num_states = tf.unstack(tf.shape(scores))
    missing = -num_frames % BLOCK_FRAMES
    scores = tf.pad(scores, [[0, missing], [0, 0], [0, 0]])
    is_frame = tf.pad(is_frame, [[0, missing], [0, 0]])
    scores = tf.reshape(scores, [-1, BLOCK_FRAMES, num_rows, num_states])
    is_frame = tf.reshape(is_frame, [-1, BLOCK_FRAMES, num_rows, 1])

    through = _scores_through_blocks(scores, skip_score, is_frame)
    before_first = tf.broadcast_to(tf.where(tf.range(num_states) == 0, wide(0.0), IMPOSSIBLE), [num_rows, num_states])
    before_blocks = _scan(
        lambda before, block: _cross(before, tf.gather(through, block)), before_first, tf.shape(through)[0]
    )[:-1]

    def enter(before: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        entered = tf.gather(scores, place, axis=1) + log_sum_exp(*ways(before, skip_score))
        return tf.where(tf.gather(is_frame, place, axis=1), entered, before)

    states = _scan(enter, before_blocks, BLOCK_FRAMES)[1:]
    return tf.reshape(tf.transpose(states, [1, 0, 2, 3]), [-1, num_rows, num_states])[:num_frames]


def _scores_through_blocks(scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor) -> tf.Tensor:
    """Returns the score of all paths through each block.

    Not a loop: XLA would copy all scores in each turn, and every frame would have as many as the last.

    Args:
        scores: float64 [N, K, B, S], of N blocks of K frames.
        skip_score: float64 [B, S].
        is_frame: bool [N, K, B, 1].

    Returns:
        float64 [N, 2 * K + 1, B, S]: the paths that reach state s after the block and were in state s - d before it, at
        [:, d, :, s]. In this order a GPU need not copy them for `_cross`.
    """
    num_blocks, _, num_rows, num_states = tf.unstack(tf.shape(scores))
    # Before the first frame a path is where it was.
    found = tf.zeros([num_blocks, 1, num_rows, num_states], tf.float64)

    def moved(found: tf.Tensor, by: int) -> tf.Tensor:
        padding = [[0, 0], [by, 2 - by], [0, 0], [by, 0]]
        return tf.pad(found, padding, constant_values=wide(IMPOSSIBLE))[..., :num_states]

    for frame in range(BLOCK_FRAMES):
        entered = log_sum_exp(moved(found, 0), moved(found, 1), moved(found, 2) + skip_score)
        entered += scores[:, frame, tf.newaxis]
        found = tf.where(is_frame[:, frame, tf.newaxis], entered, moved(found, 0))
        # Each score is read three times. XLA could merge frames into one kernel, which would compute it as often, and
        # those of the frame before nine times.
        (found,) = xla.optimization_barrier(found)
    return found


def _cross(before: tf.Tensor, through: tf.Tensor) -> tf.Tensor:
    """Returns the scores [B, S] after a block.

    Args:
        before: float64 [B, S], scores before it.
        through: float64 [2 * K + 1, B, S], the scores of the paths through it, of `_scores_through_blocks`.
    """
    most, num_states = 2 * BLOCK_FRAMES, tf.shape(before)[1]
    padded = tf.pad(before, [[0, 0], [most, 0]], constant_values=wide(IMPOSSIBLE))
    return _log_sum_exp([padded[:, most - d : most - d + num_states] + through[d] for d in range(most + 1)])


def _log_sum_exp(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the log of the sum of many exponentials, without rounding the greatest one.

    The terms are not an axis to reduce: XLA fuses them, and what makes them, into one kernel.
    """
    greatest = functools.reduce(tf.maximum, terms)
    is_greatest = [term == greatest for term in terms]
    others = [tf.where(equal, 0.0, narrow_exp(term - greatest)) for term, equal in zip(terms, is_greatest, strict=True)]
    ties = sum(tf.cast(equal, tf.float32) for equal in is_greatest) - 1.0
    return greatest + tf.cast(tf.math.log1p(sum(others) + ties), tf.float64)


def _scan(step: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], start: tf.Tensor, num_steps: int | tf.Tensor) -> tf.Tensor:
    """Returns `start` and the states of `state = step(state, i)` after each step i.

    tf.scan ends its loop by two conditions. XLA knows the number of steps only if there is one, and otherwise a GPU
    asks the host in every step whether to go on. A step reads the state from among those found: XLA would copy a
    variable of the loop in each step.
    """

    def body(i: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, found.write(i + 1, step(found.read(i), i))

    found = tf.TensorArray(start.dtype, size=num_steps + 1, element_shape=start.shape, clear_after_read=False)
    return tf.while_loop(lambda i, _: i < num_steps, body, (0, found.write(0, start)))[1].stack()
