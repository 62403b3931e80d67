"""Lists the model types of transformers that are this network: their class, their prefix and their own fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# Our field -> their name for it and its default in transformers 5.23.
Fields = Mapping[str, tuple[str, Any]]

_COMMON: Fields = {
    "vocab_size": ("vocab_size", 32),
    "conv_dim": ("conv_dim", (512,) * 7),
    "conv_kernel": ("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
    "conv_stride": ("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
    "conv_bias": ("conv_bias", False),
    "feature_norm": ("feat_extract_norm", "group"),
    "hidden_size": ("hidden_size", 768),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "intermediate_size": ("intermediate_size", 3072),
    "pos_conv_kernel": ("num_conv_pos_embeddings", 128),
    "pos_conv_groups": ("num_conv_pos_embedding_groups", 16),
    "stable_layer_norm": ("do_stable_layer_norm", False),
    "layer_norm_epsilon": ("layer_norm_eps", 1e-5),
    "hidden_dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
    "feature_projection_dropout": ("feat_proj_dropout", 0.0),
    "final_dropout": ("final_dropout", 0.1),
    "layer_drop": ("layerdrop", 0.1),
    "mask_time_prob": ("mask_time_prob", 0.05),
    "mask_time_length": ("mask_time_length", 10),
    "mask_time_min_spans": ("mask_time_min_masks", 2),
    "mask_feature_prob": ("mask_feature_prob", 0.0),
    "mask_feature_length": ("mask_feature_length", 10),
    "initializer_range": ("initializer_range", 0.02),
}
# Must have this value, which is also the default; any other value means another network.
_REQUIRED: Mapping[str, Any] = {"hidden_act": "gelu", "feat_extract_activation": "gelu", "quantization_config": None}
_WITHOUT_ATTENTION_ADAPTERS: Mapping[str, Any] = {"adapter_attn_dim": None}
_WITHOUT_ADAPTERS: Mapping[str, Any] = {"add_adapter": False, **_WITHOUT_ATTENTION_ADAPTERS}

# Read where add_adapter is true: layers behind the encoder.
_LENGTH_ADAPTER: Fields = {
    "num_length_adapters": ("num_adapter_layers", 3),
    "length_adapter_kernel": ("adapter_kernel_size", 3),
    "length_adapter_stride": ("adapter_stride", 2),
}
_CONFORMER: Fields = {
    "activation": ("hidden_act", "gelu"),
    "attention_positions": ("position_embeddings_type", "relative"),
    "rotary_base": ("rotary_embedding_base", 10_000),
    "depthwise_kernel": ("conv_depthwise_kernel_size", 31),
    "convolution_dropout": ("conformer_conv_dropout", 0.1),
}
# Without a head there is no vocabulary.
_CONFORMER_NULL: Mapping[str, Any] = {"position_embeddings_type": "none", "vocab_size": 32}
# Our fields about convolutions and position convolutions, and their values where a model has neither.
_CONVOLUTIONS = (
    "conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feature_norm", "pos_conv_kernel", "pos_conv_groups",
)  # fmt: skip
_WITHOUT_CONVOLUTIONS: Mapping[str, Any] = {name: _COMMON[name][1] for name in _CONVOLUTIONS}
_BERT_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096, "activation": "swish",
    "attention_positions": "relative_key", "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelType:
    """Names the parts of the network as one model type of transformers does.

    Attributes:
        architecture: Class of transformers with a CTC head.
        prefix: Prefix of the backbone's tensors.
        own: Fields beside the common ones, or instead of them.
        defaults: Our fields whose default in the type is another one than in the tables of fields.
        fixed: Our fields that the type has no field for, with the value that its network always has.
        required: Their fields that must have this value, beside those that all types require.
        null: Their fields that may be null, and what we read then.
        length_adapter: Fields of layers behind the encoder, which the type has where add_adapter is true.
    """

    architecture: str
    prefix: str
    own: Fields = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    null: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    length_adapter: Fields = dataclasses.field(default_factory=lambda: _LENGTH_ADAPTER)

    @property
    def fields(self) -> dict[str, tuple[str, Any]]:
        """All fields of the type: ours -> theirs and its default."""
        return {
            name: (theirs, self.defaults.get(name, default))
            for name, (theirs, default) in {**_COMMON, **self.own}.items()
            if name not in self.fixed
        }

    @property
    def all_required(self) -> dict[str, Any]:
        """All fields of theirs that must have this value."""
        own = {theirs for theirs, _ in self.own.values()}
        return {name: value for name, value in {**_REQUIRED, **self.required}.items() if name not in own}


MODEL_TYPES: Mapping[str, ModelType] = {
    "wav2vec2": ModelType(
        architecture="Wav2Vec2ForCTC",
        prefix="wav2vec2.",
        own={"attention_adapter_size": ("adapter_attn_dim", None)},
    ),
    "hubert": ModelType(
        architecture="HubertForCTC",
        prefix="hubert.",
        own={"feature_projection_norm": ("feat_proj_layer_norm", True)},
        required={**_WITHOUT_ADAPTERS, "conv_pos_batch_norm": False},
    ),
    "wavlm": ModelType(
        architecture="WavLMForCTC",
        prefix="wavlm.",
        own={
            "relative_position_buckets": ("num_buckets", 320),
            "relative_position_max_distance": ("max_bucket_distance", 800),
        },
        required=_WITHOUT_ATTENTION_ADAPTERS,
    ),
    "unispeech": ModelType(architecture="UniSpeechForCTC", prefix="unispeech.", required=_WITHOUT_ADAPTERS),
    "unispeech-sat": ModelType(architecture="UniSpeechSatForCTC", prefix="unispeech_sat.", required=_WITHOUT_ADAPTERS),
    "data2vec-audio": ModelType(
        architecture="Data2VecAudioForCTC",
        prefix="data2vec_audio.",
        own={
            "pos_conv_kernel": ("conv_pos_kernel_size", 19),
            "pos_conv_depth": ("num_conv_pos_embeddings", 5),
        },
        fixed={"feature_norm": "layer", "stable_layer_norm": False, "pos_conv_norm": "layer"},
        required=_WITHOUT_ATTENTION_ADAPTERS,
    ),
    "wav2vec2-conformer": ModelType(
        architecture="Wav2Vec2ConformerForCTC",
        prefix="wav2vec2_conformer.",
        own=_CONFORMER,
        fixed={"layer_kind": "conformer", "stable_layer_norm": True},
        null=_CONFORMER_NULL,
    ),
    "wav2vec2-bert": ModelType(
        architecture="Wav2Vec2BertForCTC",
        prefix="wav2vec2_bert.",
        own={
            **_CONFORMER,
            "relative_key_left": ("left_max_position_embeddings", 64),
            "relative_key_right": ("right_max_position_embeddings", 8),
        },
        defaults=_BERT_DEFAULTS,
        fixed={
            **_WITHOUT_CONVOLUTIONS,
            "front_end": "log_mel",
            "normalize_waveform": False,
            "layer_kind": "conformer",
            "stable_layer_norm": False,
            "depthwise_norm": "layer",
            "depthwise_causal": True,
            "length_adapter": "attention",
        },
        required={"feature_projection_input_dim": 160},
        null=_CONFORMER_NULL,
        length_adapter={
            **_LENGTH_ADAPTER,
            "num_length_adapters": ("num_adapter_layers", 1),
            "length_adapter_activation": ("adapter_act", "relu"),
            "length_adapter_feed_forward": ("use_intermediate_ffn_before_adapter", False),
        },
    ),
}
