"""Draws span masks over frames and channels in every update (SpecAugment as wav2vec 2.0 uses it)."""

from __future__ import annotations

import tensorflow as tf

from models.ops.keyed_random import UpdateRandom


def span_mask(
    *,
    num_positions: int | tf.Tensor,
    lengths: tf.Tensor,
    prob: float,
    span_length: int,
    random: UpdateRandom,
    stream: int,
    min_spans: int = 0,
) -> tf.Tensor:
    """Masks spans whose starts are sampled without replacement; spans may overlap.

    The number of spans of a row is prob * length / span_length, rounded up or down at random so that its mean is exact
    (wav2vec 2.0, https://arxiv.org/abs/2006.11477, section 4.2, as used in fine-tuning; SpecAugment,
    https://arxiv.org/abs/1904.08779). Rows shorter than one span stay unmasked.

    The published trainings raise it to at least two spans of frames. A row that is too short for two gets shorter ones
    in fairseq (`compute_mask_indices`, min_masks) and as many as the padded length of its batch holds side by side in
    transformers (`_compute_mask_indices`, mask_time_min_masks); fairseq2 (`compute_row_mask`, min_num_spans) refuses
    it. Here a row gets as many of `min_spans` as its own length holds side by side, which is what transformers does to
    a row alone, because masks must not depend on the batch.

    Args:
        num_positions: Width N of the mask.
        lengths: Integers [B]; positions at and past a row's length are never masked.
        prob: Expected ratio of masked positions, overlaps counted twice; may be above 1.
        span_length: Number of positions in a span.
        random: Random numbers of the update.
        stream: First of the two stream ids that are used.
        min_spans: Fewest spans of a row that has room for them.

    Returns:
        bool [B, N], True where masked.
    """
    lengths = tf.cast(lengths, tf.int32)
    num_rows = tf.shape(lengths)[0]
    num_starts = tf.maximum(lengths - span_length + 1, 0)
    rounding = random.uniform_rows([num_rows, 1], stream=stream)[:, 0]
    num_spans = tf.cast(tf.floor(prob * tf.cast(lengths, tf.float32) / float(span_length) + rounding), tf.int32)
    if min_spans:
        num_spans = tf.maximum(num_spans, tf.minimum(min_spans, lengths // span_length))
    num_spans = tf.minimum(num_spans, num_starts)

    # The num_spans largest of independent scores are a uniform sample without replacement.
    scores = random.uniform_rows([num_rows, num_positions], stream=stream + 1)
    is_start_position = tf.range(num_positions)[tf.newaxis, :] < num_starts[:, tf.newaxis]
    scores = tf.where(is_start_position, scores, -1.0)
    ranked = tf.sort(scores, axis=1, direction="DESCENDING")
    threshold = tf.gather(ranked, tf.maximum(num_spans - 1, 0), axis=1, batch_dims=1)
    starts = (scores >= threshold[:, tf.newaxis]) & is_start_position & (num_spans > 0)[:, tf.newaxis]

    # A position is masked if a span started within the last span_length positions: a difference of running counts.
    count = tf.cumsum(tf.cast(starts, tf.int32), axis=1)
    before = tf.pad(count, [[0, 0], [span_length, 0]])[:, : tf.shape(count)[1]]
    return count - before > 0
