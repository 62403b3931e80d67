"""Stand-ins for data and models: the engine's tests need neither."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

NUM_SAMPLES, NUM_FRAMES, NUM_TOKENS, NUM_LABELS = 40, 10, 6, 3


class ToyModel(tf_keras.Model):
    """Four samples make a frame; one hidden layer; masks some frames when training, keyed by row and update."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        initializer = tf_keras.initializers.RandomNormal(stddev=0.5, seed=seed)
        self.encoder = tf_keras.layers.Dense(8, activation="tanh", kernel_initializer=initializer, name="encoder")
        # A bias from the start: in masked frames there is nothing else, and Adam's first step has one size for all.
        # From zeros, rounding would say which token is the likeliest there.
        bias = tf_keras.initializers.RandomNormal(stddev=0.1, seed=seed)
        self.head = tf_keras.layers.Dense(
            NUM_TOKENS, kernel_initializer=initializer, bias_initializer=bias, name="head"
        )
        self.encoder.build([None, 4])
        self.head.build([None, 8])

    def make_random(self, *, seed, update, row_ids, num_views=1):
        row_ids = tf.concat([tf.cast(row_ids, tf.int64) + 10_007 * view for view in range(num_views)], axis=0)
        return tf.cast(seed, tf.int64) * 7919 + tf.cast(update, tf.int64) * 104_729 + tf.cast(row_ids, tf.int64)

    def call(self, waveform, waveform_lengths, training=False, random=None):
        x = self.encoder(tf.reshape(waveform, [-1, tf.shape(waveform)[1] // 4, 4]))
        if training:
            keep = (random[:, tf.newaxis] + tf.range(tf.shape(x)[1], dtype=tf.int64)[tf.newaxis]) % 5 > 0
            x *= tf.cast(keep, tf.float32)[:, :, tf.newaxis]
        return self.head(x)

    def training_logits(self, waveform, waveform_lengths, *, random, mask_time_factor=1.0, layers=()):
        assert not layers
        waveform = tf.tile(waveform, [tf.shape(random)[0] // tf.shape(waveform)[0], 1])
        return [self(waveform, waveform_lengths, training=True, random=random)]

    def explain_unsupported(self, *, num_views, layers):
        return ""

    def output_lengths(self, waveform_lengths):
        return tf.cast(waveform_lengths, tf.int32) // 4

    pretrained_variables = ()
    max_training_samples = 0

    def fix_weights(self):
        """Nothing is cast here."""

    @property
    def head_variables(self):
        return self.head.trainable_variables


def toy_loss(logits, logit_lengths, labels, label_lengths):
    """The dense CTC of TensorFlow."""
    return tf.nn.ctc_loss(labels, logits, label_lengths, logit_lengths, logits_time_major=False, blank_index=0)


def toy_feasible(labels, label_lengths, logit_lengths):
    """Enough frames for labels that do not repeat."""
    return tf.cast(label_lengths, tf.int32) <= tf.cast(logit_lengths, tf.int32)


def toy_decoder(logits, lengths):
    """The likeliest tokens of all frames, uncollapsed: token k of a frame is what the tests put there."""
    tokens = tf.argmax(logits, -1, output_type=tf.int32)
    return tokens, tf.cast(lengths, tf.int32)


def toy_batch(update: int, num_rows: int, *, num_real: int | None = None) -> dict[str, np.ndarray]:
    """Rows of one update, a pure function of (update, row): any split into replicas gives the same rows."""
    num_real = num_rows if num_real is None else num_real
    rows = [np.random.default_rng((update, row)) for row in range(num_rows)]
    is_real = np.arange(num_rows) < num_real
    return {
        "waveform": np.stack([rng.normal(size=NUM_SAMPLES) for rng in rows]).astype(np.float32) * is_real[:, None],
        "waveform_lengths": np.where(is_real, [int(rng.integers(20, NUM_SAMPLES + 1)) for rng in rows], 0).astype(
            np.int32
        ),
        "labels": np.stack([rng.permutation(NUM_TOKENS - 1)[:NUM_LABELS] + 1 for rng in rows]).astype(np.int32),
        "label_lengths": np.where(is_real, NUM_LABELS, 0).astype(np.int32),
        "weight": is_real.astype(np.float32),
        "utterance_index": np.where(is_real, update * 1000 + np.arange(num_rows), -1).astype(np.int64),
    }


def toy_dataset_fn(num_rows: int, *, make=toy_batch, num_updates: int = 50):
    """(input_context, start_update) -> dataset of replica batches, as the trainer wants it."""

    def dataset_fn(context, start_update):
        size = num_rows // context.num_replicas_in_sync
        batches = []
        for update in range(start_update, num_updates):
            whole = make(update, num_rows)
            for replica in range(context.num_replicas_in_sync):
                batches.append({key: x[replica * size : (replica + 1) * size] for key, x in whole.items()})
        stacked = {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return tf.data.Dataset.from_tensor_slices(stacked).with_options(options)

    return dataset_fn


def toy_varying_dataset_fn(rows_of_update, *, make=toy_batch, num_updates=50):
    """As `toy_dataset_fn`, but update u has `rows_of_update(u)` rows: their number is not static."""

    def dataset_fn(context, start_update):
        def replica_batches():
            for update in range(start_update, num_updates):
                size = rows_of_update(update) // context.num_replicas_in_sync
                whole = make(update, rows_of_update(update))
                for replica in range(context.num_replicas_in_sync):
                    yield {key: x[replica * size : (replica + 1) * size] for key, x in whole.items()}

        signature = {key: tf.TensorSpec([None, *x.shape[1:]], x.dtype) for key, x in make(0, 1).items()}
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return tf.data.Dataset.from_generator(replica_batches, output_signature=signature).with_options(options)

    return dataset_fn
