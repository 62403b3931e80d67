"""Sums the probability of all CTC paths over blocks of frames, which XLA compiles to few kernels.

`models.ctc.paths.sum_paths` takes a step for every frame, and a step costs an accelerator several launches whatever its
size. Here all blocks of a row are computed at the same time, so that only the steps from block to block remain:

1. For each block, the scores of all paths through it, from each state before it to each state after it. A path moves on
   by at most two states a frame, so these are 2 * `BLOCK_FRAMES` + 1 scores for each state.
2. From block to block, the scores of all paths up to the end of each block.
3. Within each block, the scores after each of its frames.

The same problem backwards in time, with the states in reverse order, gives the paths that leave each state. Both
directions run together as twice as many rows (docs/decisions/0011).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from models.ctc.paths import IMPOSSIBLE, log_sum_exp, narrow_exp, ways, wide

# More frames make fewer kernels, but the first step does work in proportion.
BLOCK_FRAMES = 16


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
    num_blocks = (num_frames + BLOCK_FRAMES - 1) // BLOCK_FRAMES
    missing = num_blocks * BLOCK_FRAMES - num_frames
    scores = tf.pad(scores, [[0, missing], [0, 0], [0, 0]])
    is_frame = tf.pad(is_frame, [[0, missing], [0, 0]])
    scores = tf.reshape(scores, [num_blocks, BLOCK_FRAMES, num_rows, num_states])
    is_frame = tf.reshape(is_frame, [num_blocks, BLOCK_FRAMES, num_rows, 1])

    scores = tf.transpose(scores, [1, 0, 2, 3])
    is_frame = tf.transpose(is_frame, [1, 0, 2, 3])
    through = _scores_through_blocks(scores, skip_score, is_frame)
    before_first = tf.broadcast_to(tf.where(tf.range(num_states) == 0, wide(0.0), IMPOSSIBLE), [num_rows, num_states])
    ends = _scan(_cross, before_first, through)

    def enter(before: tf.Tensor, frame_scores: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        return tf.where(counts, frame_scores + log_sum_exp(*ways(before, skip_score)), before)

    states = _scan(enter, tf.concat([before_first[tf.newaxis], ends[:-1]], axis=0), scores, is_frame)
    return tf.reshape(tf.transpose(states, [1, 0, 2, 3]), [-1, num_rows, num_states])[:num_frames]


def _scores_through_blocks(scores: tf.Tensor, skip_score: tf.Tensor, is_frame: tf.Tensor) -> tf.Tensor:
    """Returns the score of all paths through each block.

    Args:
        scores: float64 [K, N, B, S], of N blocks of K frames.
        skip_score: float64 [B, S].
        is_frame: bool [K, N, B, 1].

    Returns:
        float64 [N, B, 2 * K + 1, S]: the paths that reach state s after the block and were in state s - d before it.
    """
    _, num_blocks, num_rows, num_states = tf.unstack(tf.shape(scores))
    width = 2 * BLOCK_FRAMES + 1

    def moved(found: tf.Tensor, by: int) -> tf.Tensor:
        padded = tf.pad(found, [[0, 0], [0, 0], [by, 0], [by, 0]], constant_values=wide(IMPOSSIBLE))
        return padded[:, :, :width, :num_states]

    def enter(frame: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        entered = log_sum_exp(found, moved(found, 1), moved(found, 2) + skip_score[:, tf.newaxis])
        entered += tf.gather(scores, frame)[:, :, tf.newaxis]
        return frame + 1, tf.where(tf.gather(is_frame, frame)[:, :, tf.newaxis], entered, found)

    # Before the first frame a path is where it was.
    start = tf.where(tf.range(width)[:, tf.newaxis] == 0, wide(0.0), IMPOSSIBLE)
    start = tf.broadcast_to(start, [num_blocks, num_rows, width, num_states])
    return tf.while_loop(lambda frame, found: frame < BLOCK_FRAMES, enter, (0, start))[1]


def _cross(before: tf.Tensor, through: tf.Tensor) -> tf.Tensor:
    """Returns the scores [B, S] after a block.

    Args:
        before: float64 [B, S], scores before it.
        through: float64 [B, 2 * K + 1, S], of `_scores_through_blocks`.
    """
    most, num_states = 2 * BLOCK_FRAMES, tf.shape(before)[1]
    padded = tf.pad(before, [[0, 0], [most, 0]], constant_values=wide(IMPOSSIBLE))
    # Not a reduction over an axis: XLA fuses these terms into one kernel.
    return _log_sum_exp([padded[:, most - d : most - d + num_states] + through[:, d] for d in range(most + 1)])


def _log_sum_exp(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the log of the sum of many exponentials, without rounding the greatest one."""
    greatest = functools.reduce(tf.maximum, terms)
    is_greatest = [term == greatest for term in terms]
    others = [tf.where(equal, 0.0, narrow_exp(term - greatest)) for term, equal in zip(terms, is_greatest, strict=True)]
    ties = sum(tf.cast(equal, tf.float32) for equal in is_greatest) - 1.0
    return greatest + tf.cast(tf.math.log1p(sum(others) + ties), tf.float64)


def _scan(step: Callable[..., tf.Tensor], start: tf.Tensor, *elements: tf.Tensor) -> tf.Tensor:
    """Returns all states of `state = step(state, *(x[i] for x in elements))`, the first axis i; `start` is not one.

    tf.scan ends its loop by two conditions. XLA knows the number of steps only if there is one, and otherwise a GPU
    asks the host in every step whether to go on.
    """
    count = tf.shape(elements[0])[0]

    def body(i: tf.Tensor, state: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        state = step(state, *(tf.gather(x, i) for x in elements))
        return i + 1, state, found.write(i, state)

    found = tf.TensorArray(start.dtype, size=count, element_shape=start.shape)
    return tf.while_loop(lambda i, *_: i < count, body, (0, start, found))[2].stack()
