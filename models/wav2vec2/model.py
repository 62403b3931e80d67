"""wav2vec 2.0 with a CTC head; its logits do not depend on padding or on the other rows of the batch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from common.xla_notice import drop_compilers_first_notice
from models.ops.devices import on_cpu
from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2 import feature_encoder, pretrained
from models.wav2vec2.bottleneck import Bottleneck
from models.wav2vec2.config import PRECISIONS, Wav2Vec2Config, resolve
from models.wav2vec2.layers import Dtype, LayerNorm, Projection, choose_operations
from models.wav2vec2.length_adapter import LengthAdapter
from models.wav2vec2.log_mel import LogMelFeatures
from models.wav2vec2.low_rank import LowRankUpdate
from models.wav2vec2.masking import span_mask
from models.wav2vec2.transformer import Encoder

# Stream ids of the random numbers; the encoder uses those from its own upwards, five or eight for each layer. LoRA's
# are in `models.wav2vec2.low_rank`.
_STREAM_TIME_MASK = 1
_STREAM_FEATURE_MASK = 3
_STREAM_PROJECTION = 5
_STREAM_FINAL = 6
_STREAM_ENCODER = 16
_STREAM_INTERMEDIATE = 1 << 20  # plus the number of the layer
_STREAM_LENGTH_ADAPTER = 1 << 21


class Wav2Vec2Backbone(tf_keras.layers.Layer):
    """Maps a waveform to hidden states: feature encoder, feature projection, masks, transformer and length adapters."""

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype = "float32") -> None:
        """Makes all variables of `config` under the policy `dtype`."""
        # Not autocast: a spectrogram needs every bit of the samples, and convolutions cast them themselves.
        super().__init__(name="wav2vec2", dtype=dtype, autocast=False)
        self.config = config
        if config.front_end == "log_mel":
            self.feature_encoder = LogMelFeatures(config=config, dtype=dtype)
        else:
            self.feature_encoder = feature_encoder.FeatureEncoder(config=config, dtype=dtype)
        self.feature_norm = None
        if config.feature_projection_norm:
            self.feature_norm = LayerNorm(
                size=config.feature_size,
                epsilon=config.layer_norm_epsilon,
                name="feature_projection",
                operations=choose_operations(config),
            )
        self.feature_projection = Projection(
            input_size=config.feature_size,
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
        self.encoder = Encoder(config=config, stream=_STREAM_ENCODER, dtype=dtype)
        self.length_adapter = None
        if config.num_length_adapters:
            self.length_adapter = LengthAdapter(
                config=config, operations=choose_operations(config), stream=_STREAM_LENGTH_ADAPTER, dtype=dtype
            )

    def call(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        random: UpdateRandom | None,
        mask_time_factor: float = 1.0,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Maps waveform [B, T] and its valid lengths [B] to hidden states [B, F, D] and frame counts [B].

        Args:
            waveform: float [B, T] at 16 kHz.
            waveform_lengths: Integers [B], valid samples.
            random: Random numbers of the update for dropout, masks and layer drop; None in inference. With several
                views, B is num_views times as large in what is returned.
            mask_time_factor: Multiplies `mask_time_prob`.

        Returns:
            The hidden states that `Encoder.call` returns, the last one after the length adapters if there are any, and
            its frame counts, int32 [B].
        """
        features, lengths = self.feature_encoder(waveform, waveform_lengths)
        if not self.feature_encoder.trainable:
            features = tf.stop_gradient(features)  # keeps the backward pass out of the most expensive layers
        x = features if self.feature_norm is None else self.feature_norm(features, random)
        x = self.feature_projection(x)
        if random is not None and random.num_views > 1:
            # Nothing is random up to here, so the views share the convolutions.
            x, lengths = (tf.concat([y] * random.num_views, axis=0) for y in (x, lengths))
        x = dropout(x, self.config.feature_projection_dropout, random, stream=_STREAM_PROJECTION)
        if random is not None:
            x = self._mask(x, lengths, random, time_factor=mask_time_factor)
        states = self._encode(x, lengths, random)
        if self.length_adapter is not None:
            states[-1], lengths = self.length_adapter(states[-1], lengths, random)
        return states, lengths

    def _encode(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom | None) -> list[tf.Tensor]:
        """Returns the hidden states of the encoder, with zeros past the longest row where skipping it saves time."""
        if random is not None or not self.config.uses_fused_ops or not on_cpu():
            return self.encoder(x, lengths, random)
        # Inference on a CPU needs no static number of frames. A step that XLA compiles whole does; it is never fused.
        states = self.encoder(x[:, : tf.maximum(tf.reduce_max(lengths), 1)], lengths, random)
        missing = [[0, 0], [0, tf.shape(x)[1] - tf.shape(states[0])[1]], [0, 0]]
        return [tf.ensure_shape(tf.pad(state, missing), x.shape) for state in states]

    def _mask(self, x: tf.Tensor, lengths: tf.Tensor, random: UpdateRandom, *, time_factor: float = 1.0) -> tf.Tensor:
        """Replaces masked frames by the learned embedding and masked channels by zero."""
        config = self.config
        if config.mask_time_prob > 0.0:
            masked = span_mask(
                num_positions=tf.shape(x)[1],
                lengths=lengths,
                prob=config.mask_time_prob * time_factor,
                span_length=config.mask_time_length,
                random=random,
                stream=_STREAM_TIME_MASK,
                min_spans=config.mask_time_min_spans,
            )
            x = tf.where(masked[:, :, tf.newaxis], tf.cast(self.mask_embedding, x.dtype), x)
        if config.mask_feature_prob > 0.0:
            masked = span_mask(
                num_positions=config.hidden_size,
                lengths=tf.fill(tf.shape(lengths), config.hidden_size),
                prob=config.mask_feature_prob,
                span_length=config.mask_feature_length,
                random=random,
                stream=_STREAM_FEATURE_MASK,
            )
            x = tf.where(masked[:, tf.newaxis, :], tf.zeros([], x.dtype), x)
        return x


class Wav2Vec2ForCTC(tf_keras.Model):
    """wav2vec 2.0 with a dense CTC head (Baevski et al. 2020, https://arxiv.org/abs/2006.11477).

        model = Wav2Vec2ForCTC.from_pretrained("runs/base")
        logits = model(waveform, waveform_lengths)  # float32 [B, F, V]
        tokens, num_tokens = greedy_decode(logits, model.output_lengths(waveform_lengths))

    A row's logits depend on its own valid samples only: neither the amount of padding nor the other rows of the batch
    change them.
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
            config: Architecture.
            precision: Keras policy: "float32", "mixed_bfloat16" or "mixed_float16". Variables, norms, softmax and
                logits stay float32.
            freeze_feature_encoder: Whether the convolutions stay untrained, as in all published fine-tuning recipes.
        """
        policy = tf_keras.mixed_precision.Policy(precision)
        super().__init__(name="wav2vec2_for_ctc", dtype=policy, autocast=False)
        self.config = config
        self.backbone = Wav2Vec2Backbone(config=config, dtype=policy)
        self.head = Projection(
            input_size=config.head_input_size,
            output_size=config.vocab_size,
            name="head",
            dtype=policy,
            stddev=config.initializer_range,
        )
        self.backbone.feature_encoder.trainable = not (freeze_feature_encoder or config.is_mostly_frozen)
        self._trained: frozenset[Any] | None = None  # None = whatever Keras says
        if config.is_mostly_frozen:
            trained = [*self.adaptation_variables, *self.head.variables]
            if config.train_adapters_only:
                trained += self.attention_adapter_variables
            if config.bottleneck_size:  # whose paper trains the norms as well
                trained += [v for v in self.backbone.encoder.variables if "norm/layer_norm/" in v.name]
            self._trained = frozenset(variable.ref() for variable in trained)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """The variables that train: those of LoRA or of adapters with the head, where the rest is frozen."""
        found = super().trainable_weights
        return found if self._trained is None else [variable for variable in found if variable.ref() in self._trained]

    @property
    def attention_adapter_variables(self) -> list[tf.Variable]:
        """The variables of the attention adapters, which together with the head belong to one language."""
        adapters = (layer.adapter for layer in self.backbone.encoder.transformer_layers)
        return [variable for adapter in adapters if adapter is not None for variable in adapter.variables]

    @property
    def adaptation_variables(self) -> list[tf.Variable]:
        """The variables of LoRA or of bottleneck adapters, which weights from before the adaptation lack."""
        parts = [part for part in self.submodules if isinstance(part, (LowRankUpdate, Bottleneck))]
        return [variable for part in parts for variable in part.variables]

    def merge_low_rank(self) -> None:
        """Adds LoRA's updates to the kernels and removes them; eager, for inference and export only."""
        for part in self.submodules:
            if isinstance(part, Projection):
                part.merge()
        self.config = dataclasses.replace(self.config, lora_rank=0)
        if not self.config.is_adapted:
            self._trained = None

    def call(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        training: bool = False,
        random: UpdateRandom | None = None,
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V].

        Args:
            waveform: float [B, T] at 16 kHz, normalized per utterance; values past a row's length are ignored.
            waveform_lengths: Integers [B], valid samples.
            training: Whether dropout, masks and layer drop are on.
            random: Random numbers of the update; required when training.

        Raises:
            ValueError: If training without `random`.
        """
        if not training:
            hidden_states, _ = self.backbone(waveform, waveform_lengths, None)
            return tf.cast(self.head(hidden_states[-1]), tf.float32)
        if random is None:
            raise ValueError("training=True needs random=UpdateRandom(...) for dropout and masks; see make_random")
        return self.training_logits(waveform, waveform_lengths, random=random)[-1]

    def training_logits(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        *,
        random: UpdateRandom,
        mask_time_factor: float = 1.0,
        layers: Sequence[int] = (),
    ) -> list[tf.Tensor]:
        """Returns float32 logits [num_views * B, F, V] of some layers, and last those of the last one.

        The head is shared: it reads the output of a layer after the model's final norm, which only pre-norm models have
        (Lee and Watanabe 2021, https://arxiv.org/abs/2102.03216).

        Args:
            waveform: As in `call`.
            waveform_lengths: As in `call`.
            random: Random numbers of the update, for one or several views of each row.
            mask_time_factor: Multiplies `mask_time_prob`.
            layers: Numbers of transformer layers, from 1.
        """
        hidden_states, _ = self.backbone(waveform, waveform_lengths, random, mask_time_factor=mask_time_factor)
        outputs = [
            (self.backbone.encoder.normalize_output(hidden_states[layer], random), _STREAM_INTERMEDIATE + layer)
            for layer in layers
        ]
        outputs.append((hidden_states[-1], _STREAM_FINAL))
        rate = self.config.final_dropout
        return [tf.cast(self.head(dropout(x, rate, random, stream=stream)), tf.float32) for x, stream in outputs]

    def explain_unsupported(self, *, num_views: int, layers: Sequence[int]) -> str:
        """Returns why `training_logits` cannot serve so many views and these layers; "" if it can."""
        del num_views
        if layers and self.config.num_length_adapters:
            return "the layers of this model have more frames than its head, which reads length adapters"
        last = self.config.num_layers
        wrong = [layer for layer in layers if not 1 <= layer < last]
        if not wrong:
            return ""
        return f"layer {wrong[0]} is no layer before the last one of this model, which has {last}"

    def fix_weights(self) -> None:
        """Caches all kernels in the dtype of their products, for inference only.

        Later changes of the weights have no effect, so do not train or export the model after it. It saves the cast to
        half precision in each call, about 4 % of the time of a single utterance, and costs the memory of the copies.
        """
        for part in self.submodules:
            if part is not self and hasattr(part, "fix_weights"):
                part.fix_weights()

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor, num_views: int = 1) -> UpdateRandom:
        """Returns the random numbers of one update, for dropout, masks and layer drop."""
        return UpdateRandom(seed=seed, update=update, row_ids=row_ids, num_views=num_views)

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns the valid frames of the logits, int32 [B], for rows of `waveform_lengths` samples."""
        return feature_encoder.output_lengths(self.config, waveform_lengths)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, precision: str = "float32", freeze_feature_encoder: bool = False
    ) -> Wav2Vec2ForCTC:
        """Builds a model from a folder with its weights; call inside `strategy.scope()` to distribute it.

        Args:
            folder: Folder written by `save_pretrained` or `python -m models.convert`, or the workdir of a training run,
                whose weights with the lowest word error rate are taken, or else the newest.
            precision: Keras policy, as in `__init__`.
            freeze_feature_encoder: Whether the convolutions stay untrained.

        Raises:
            FileNotFoundError: If the folder lacks its config or its weights.
            ValueError: If one of them is damaged, or they do not match.
        """
        config = pretrained.read_config(folder)
        model = cls(config=config, precision=precision, freeze_feature_encoder=freeze_feature_encoder)
        pretrained.restore(model, folder)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, vocab: str | os.PathLike[str] = "") -> None:
        """Writes config.json, the weights and a copy of the file `vocab` (if given) to `folder`."""
        pretrained.save(self, self.config, folder, vocab=vocab)

    @property
    def head_variables(self) -> list[tf.Variable]:
        """The variables that train while the rest is frozen by `model.freeze_encoder_updates`."""
        return self.head.trainable_variables

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """Returns no variables: `__init__` makes random weights, and pretrained ones come from a checkpoint."""
        return []

    @property
    def max_training_samples(self) -> int:
        """Returns 0: training takes rows of any length."""
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
    """Builds the model of a preset; call inside `strategy.scope()` to distribute it.

    Args:
        preset: Name of an architecture in `models.wav2vec2.presets.PRESETS`.
        vocab_size: Width of the CTC head.
        architecture: Fields of `Wav2Vec2Config` to use instead of a preset, as `models.architecture.find_architecture`
            returns them.
        precision: Keras policy, one of `PRECISIONS`.
        freeze_feature_encoder: Whether the convolutions stay untrained.
        **overrides: Fields of `Wav2Vec2Config` to change.

    Raises:
        ValueError: If the preset, the precision or a field is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"train.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    config = resolve(preset, architecture or {}, vocab_size=vocab_size, **overrides)
    if config.uses_fused_ops:
        drop_compilers_first_notice()
    return Wav2Vec2ForCTC(config=config, precision=precision, freeze_feature_encoder=freeze_feature_encoder)
