"""wav2vec 2.0 with a CTC head: waveform to logits, independent of padding and of the other rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from models.ops.devices import on_cpu
from models.ops.fused import drop_compilers_first_notice
from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2 import feature_encoder, pretrained
from models.wav2vec2.config import PRECISIONS, Wav2Vec2Config, resolve
from models.wav2vec2.layers import LayerNorm, Projection
from models.wav2vec2.masking import span_mask
from models.wav2vec2.transformer import Encoder

# Places of the random numbers; the encoder takes all from its own upwards.
_SALT_TIME_MASK = 1
_SALT_FEATURE_MASK = 3
_SALT_PROJECTION = 5
_SALT_FINAL = 6
_SALT_ENCODER = 16


class Wav2Vec2Backbone(tf_keras.layers.Layer):
    """Feature encoder, feature projection, masks and transformer: waveform to hidden states."""

    def __init__(self, *, config: Wav2Vec2Config, dtype: str | tf_keras.mixed_precision.Policy = "float32") -> None:
        """Makes all variables of `config` under the policy `dtype`."""
        super().__init__(name="wav2vec2", dtype=dtype)
        self.config = config
        self.feature_encoder = feature_encoder.FeatureEncoder(config=config, dtype=dtype)
        self.feature_norm = None
        if config.feature_projection_norm:
            self.feature_norm = LayerNorm(
                size=config.conv_dim[-1], epsilon=config.layer_norm_epsilon, name="feature_projection"
            )
        self.feature_projection = Projection(
            input_size=config.conv_dim[-1],
            output_size=config.hidden_size,
            name="feature_projection",
            dtype=dtype,
            stddev=config.initializer_range,
        )
        self.mask_embedding = self.add_weight(
            name="mask_embedding",
            shape=(config.hidden_size,),
            initializer=tf_keras.initializers.RandomUniform(0.0, 1.0),
        )
        self.encoder = Encoder(config=config, salt=_SALT_ENCODER, dtype=dtype)

    def call(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, random: UpdateRandom | None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Maps waveform [B, T] and its valid lengths [B] to hidden states [B, F, D] and frame counts [B].

        Args:
            waveform: float [B, T] at 16 kHz.
            waveform_lengths: Integers [B], in samples.
            random: The update's random numbers switch dropout, masks and layer drop on; None switches them off.

        Returns:
            The states that `Encoder.call` lists, and int32 [B].
        """
        features, lengths = self.feature_encoder(waveform, waveform_lengths)
        if not self.feature_encoder.trainable:
            features = tf.stop_gradient(features)  # keeps the backward pass out of the most expensive layers
        as_region = random is not None and self.config.uses_regions
        x = features if self.feature_norm is None else self.feature_norm(features, as_region=as_region)
        x = self.feature_projection(x)
        x = dropout(x, self.config.feature_projection_dropout, random, salt=_SALT_PROJECTION)
        if random is not None:
            x = self._mask(x, lengths, random)
        return self._encode(x, lengths, random), lengths

    def _encode(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> list[tf.Tensor]:
        """The transformer's states; past the longest row, where nothing is of use, zeros if that saves time."""
        if random is not None or not self.config.uses_regions or not on_cpu():
            return self.encoder(x, lengths, random)
        # On a CPU no kernel of inference needs a fixed number of frames. A step compiled whole does: it has no regions.
        states = self.encoder(x[:, : tf.maximum(tf.reduce_max(lengths), 1)], lengths, random)
        missing = [[0, 0], [0, tf.shape(x)[1] - tf.shape(states[0])[1]], [0, 0]]
        return [tf.ensure_shape(tf.pad(state, missing), x.shape) for state in states]

    def _mask(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom) -> tf.Tensor:
        """Replaces masked frames by the learned embedding and masked channels by zero."""
        config = self.config
        if config.mask_time_prob > 0.0:
            masked = span_mask(
                num_positions=tf.shape(x)[1],
                lengths=lengths,
                prob=config.mask_time_prob,
                span_length=config.mask_time_length,
                random=random,
                salt=_SALT_TIME_MASK,
            )
            x = tf.where(masked[:, :, tf.newaxis], tf.cast(self.mask_embedding, x.dtype), x)
        if config.mask_feature_prob > 0.0:
            masked = span_mask(
                num_positions=config.hidden_size,
                lengths=tf.fill(tf.shape(lengths), config.hidden_size),
                prob=config.mask_feature_prob,
                span_length=config.mask_feature_length,
                random=random,
                salt=_SALT_FEATURE_MASK,
            )
            x = tf.where(masked[:, tf.newaxis, :], tf.zeros([], x.dtype), x)
        return x


class Wav2Vec2ForCTC(tf_keras.Model):
    """The backbone with a dense CTC head.

    `model(waveform, waveform_lengths)` -> float32 logits [B, F, V]. A row's logits depend on its own valid samples
    only: neither the amount of padding nor the other rows of the batch change them.
    """

    def __init__(
        self,
        *,
        config: Wav2Vec2Config,
        precision: str = "float32",
        freeze_feature_encoder: bool = False,
    ) -> None:
        """Makes all variables; call inside `strategy.scope()` to distribute them.

        Args:
            config: The architecture.
            precision: Keras policy: "float32", "mixed_bfloat16" or "mixed_float16". Variables, norms, softmax and the
                logits stay float32.
            freeze_feature_encoder: Leaves the convolutions untrained, as every published fine-tuning recipe does.
        """
        policy = tf_keras.mixed_precision.Policy(precision)
        super().__init__(name="wav2vec2_for_ctc", dtype=policy)
        self.config = config
        self.backbone = Wav2Vec2Backbone(config=config, dtype=policy)
        self.head = Projection(
            input_size=config.hidden_size,
            output_size=config.vocab_size,
            name="head",
            dtype=policy,
            stddev=config.initializer_range,
        )
        self.backbone.feature_encoder.trainable = not freeze_feature_encoder

    def call(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        training: bool = False,
        random: UpdateRandom | None = None,
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V].

        Args:
            waveform: float [B, T] at 16 kHz, normalized per utterance, anything past a row's length.
            waveform_lengths: Integers [B], valid samples.
            training: Whether dropout, masks and layer drop are on.
            random: Their random numbers; required when training.

        Raises:
            ValueError: If training without `random`.
        """
        if training and random is None:
            raise ValueError("training=True needs random=UpdateRandom(...): dropout and masks are keyed, not global")
        hidden_states, _ = self.backbone(waveform, waveform_lengths, random if training else None)
        x = dropout(hidden_states[-1], self.config.final_dropout, random if training else None, salt=_SALT_FINAL)
        return tf.cast(self.head(x), tf.float32)

    def fix_weights(self) -> None:
        """Casts the kernels of all products once, for inference alone: later weights need not be seen.

        Otherwise each call makes its half-precision copies, some 4 % of the time of a single utterance. Costs the
        memory of those copies. Not for a model that is to be trained or exported.
        """
        for part in self.submodules:
            if part is not self and hasattr(part, "fix_weights"):
                part.fix_weights()

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor) -> UpdateRandom:
        """Returns the random numbers of one update: of dropout, masks and layer drop."""
        return UpdateRandom(seed=seed, update=update, row_ids=row_ids)

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B]: valid frames of the logits for rows of `waveform_lengths` samples."""
        return feature_encoder.output_lengths(self.config, waveform_lengths)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, precision: str = "float32", freeze_feature_encoder: bool = False
    ) -> Wav2Vec2ForCTC:
        """Builds the model of a folder with its weights; inside `strategy.scope()` to distribute it.

        Args:
            folder: Written by `save_pretrained`, `python -m models.convert` or a training run: its workdir, of which
                the weights with the lowest word error rate are taken, or else the newest.
            precision: As in `__init__`.
            freeze_feature_encoder: As in `__init__`.

        Raises:
            FileNotFoundError: If the folder lacks its config or its weights.
            ValueError: If one of them is damaged, or they do not belong together.
        """
        config = pretrained.read_config(folder)
        model = cls(config=config, precision=precision, freeze_feature_encoder=freeze_feature_encoder)
        pretrained.restore(model, folder)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, vocab: str | os.PathLike[str] = "") -> None:
        """Writes config.json, the weights, and a copy of the file `vocab` if one is given, to `folder`."""
        pretrained.save(self, self.config, folder, vocab=vocab)

    @property
    def head_variables(self) -> list[tf.Variable]:
        """The variables that train while the rest is frozen by `model.freeze_encoder_updates`."""
        return self.head.trainable_variables

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """None: weights come from a checkpoint."""
        return []

    @property
    def max_training_samples(self) -> int:
        """0: rows of any length can be trained on."""
        return 0


def build_model(
    *,
    preset: str,
    vocab_size: int,
    architecture: Mapping[str, Any] | None = None,
    precision: str = "float32",
    freeze_feature_encoder: bool = False,
    **overrides: Any,
) -> Wav2Vec2ForCTC:
    """Builds the model of a preset; inside `strategy.scope()` to distribute it.

    Args:
        preset: Name of the architecture, as `models.wav2vec2.config.preset`.
        architecture: Fields of `Wav2Vec2Config` instead, as `models.architecture.find_architecture` returns them.
        vocab_size: Width of the CTC head.
        precision: As `Wav2Vec2ForCTC`.
        freeze_feature_encoder: As `Wav2Vec2ForCTC`.
        **overrides: Fields of `Wav2Vec2Config`.

    Raises:
        ValueError: If the preset, the precision or a field is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"train.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    config = resolve(preset, architecture or {}, vocab_size=vocab_size, **overrides)
    if config.uses_regions:
        drop_compilers_first_notice()
    return Wav2Vec2ForCTC(config=config, precision=precision, freeze_feature_encoder=freeze_feature_encoder)
