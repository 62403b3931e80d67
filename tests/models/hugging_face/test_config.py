"""Hugging Face's config.json: every field there and back, defaults, and what is refused by name."""

from __future__ import annotations

import dataclasses
import json

import pytest

from models.hugging_face.config import from_hf, read_hf_config, to_hf, usual_type
from models.hugging_face.model_types import MODEL_TYPES
from models.wav2vec2.config import Wav2Vec2Config, preset
from models.wav2vec2.presets import PRESETS

# Decide how a fresh model starts, which transformers does in its own way.
OURS_ALONE = {
    # Normalization and adapters stand in other files of theirs.
    name: getattr(Wav2Vec2Config(), name)
    for name in (
        "conv_init",
        "fused_ops",
        "gradient_checkpointing",
        "normalize_waveform",
        "train_adapters_only",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_targets",
        "bottleneck_size",
    )
}

# No other field has its default value, ours or theirs, but for parts that one model type has.
ALL_DIFFERENT = Wav2Vec2Config(
    vocab_size=40, conv_dim=(8, 16), conv_kernel=(9, 4), conv_stride=(4, 3), conv_bias=True, feature_norm="layer",
    hidden_size=48, num_layers=3, num_heads=6, intermediate_size=72, pos_conv_kernel=7,
    pos_conv_groups=8, stable_layer_norm=True, layer_norm_epsilon=1e-4, hidden_dropout=0.01, attention_dropout=0.02,
    activation_dropout=0.03, feature_projection_dropout=0.04, final_dropout=0.05, layer_drop=0.06, mask_time_prob=0.07,
    mask_time_length=8, mask_time_min_spans=1, mask_feature_prob=0.09, mask_feature_length=11, initializer_range=0.12,
)  # fmt: skip
PARTS = {
    "wav2vec2": {"attention_adapter_size": 5},
    "hubert": {"feature_projection_norm": False},
    "wavlm": {"relative_position_buckets": 16, "relative_position_max_distance": 20},
    "unispeech": {},
    "unispeech-sat": {},
    "data2vec-audio": {"pos_conv_norm": "layer", "pos_conv_depth": 3},
    "wav2vec2-conformer": {
        "activation": "relu", "attention_positions": "rotary", "rotary_base": 500, "depthwise_kernel": 7,
        "convolution_dropout": 0.13, "num_length_adapters": 2, "length_adapter_stride": 3, "output_size": 24,
    },
    "wav2vec2-bert": {
        "activation": "gelu", "relative_key_left": 5, "relative_key_right": 2, "num_length_adapters": 2,
        "length_adapter_kernel": 8, "length_adapter_stride": 8, "length_adapter_activation": "swish",
        "length_adapter_feed_forward": True, "output_size": 24,
    },
}  # fmt: skip
# Parts that a model type has or lacks as a whole.
KINDS = {"front_end", "layer_kind", "depthwise_norm", "depthwise_causal", "length_adapter"}


def test_every_field_survives_there_and_back():
    defaults, parts = Wav2Vec2Config(), {name for fields in PARTS.values() for name in fields} | KINDS
    for field in dataclasses.fields(Wav2Vec2Config):
        is_default = getattr(ALL_DIFFERENT, field.name) == getattr(defaults, field.name)
        assert is_default == (field.name in OURS_ALONE or field.name in parts), field.name
    assert PARTS.keys() == MODEL_TYPES.keys()
    for model_type, fields in PARTS.items():
        config = dataclasses.replace(ALL_DIFFERENT, **{**MODEL_TYPES[model_type].fixed, **fields})
        assert from_hf(json.loads(json.dumps(to_hf(config, model_type=model_type)))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_there_and_back(name):
    config = preset(name)
    model_type = usual_type(config)
    kinds = {"wavlm": "wavlm", "data2vec": "data2vec-audio", "conformer": "wav2vec2-conformer", "w2v": "wav2vec2-bert"}
    assert model_type == kinds.get(name.split("_")[0], "wav2vec2")
    wanted = {**OURS_ALONE, "normalize_waveform": config.front_end == "convolutions"}
    assert from_hf(to_hf(config, model_type=model_type)) == preset(name, **wanted)


def test_published_w2v_bert_config_becomes_the_preset():
    # The fields of facebook/w2v-bert-2.0 that its class does not have by default; it has no head.
    fields = {"model_type": "wav2vec2-bert", "vocab_size": None, "layerdrop": 0.0, "mask_time_prob": 0.0}
    rates = {
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feature_projection_dropout": 0.0,
        "layer_drop": 0.0, "mask_time_prob": 0.0, "mask_time_min_spans": 2,
    }  # fmt: skip
    assert from_hf(fields) == preset("w2v_bert_2", **rates)


def test_no_positions_are_null_there_and_back():
    config = from_hf({"model_type": "wav2vec2-conformer", "position_embeddings_type": None})
    assert config.attention_positions == "none"
    assert to_hf(config, model_type="wav2vec2-conformer")["position_embeddings_type"] is None


def test_a_kernel_that_is_read_as_it_is_needs_an_adapter_that_exists():
    fields = {"model_type": "wav2vec2", "add_adapter": False, "adapter_kernel_size": 5, "num_adapter_layers": 3}
    assert from_hf(fields) == from_hf({"model_type": "wav2vec2"})
    assert from_hf({**fields, "add_adapter": True, "adapter_kernel_size": 3}).num_length_adapters == 3


def test_published_large_config_becomes_the_preset():
    # As facebook/wav2vec2-large-960h-lv60-self has it: fields of old versions, others left out.
    fields = {
        "activation_dropout": 0.1, "apply_spec_augment": True, "architectures": ["Wav2Vec2ForCTC"],
        "attention_dropout": 0.1, "conv_bias": True, "conv_dim": [512] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2], "ctc_loss_reduction": "sum", "do_stable_layer_norm": True,
        "feat_extract_activation": "gelu", "feat_extract_dropout": 0.0, "feat_extract_norm": "layer",
        "feat_proj_dropout": 0.1, "final_dropout": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
        "hidden_dropout": 0.1, "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
        "layerdrop": 0.1, "mask_feature_length": 10, "mask_feature_prob": 0.0, "mask_time_length": 10,
        "mask_time_prob": 0.05, "model_type": "wav2vec2", "num_attention_heads": 16,
        "num_conv_pos_embedding_groups": 16, "num_conv_pos_embeddings": 128,
        "num_feat_extract_layers": 7, "num_hidden_layers": 24, "pad_token_id": 0,
        "transformers_version": "4.7.0.dev0", "vocab_size": 32,
    }  # fmt: skip
    assert from_hf(fields) == preset("large_lv60", mask_time_min_spans=2)


def test_absent_fields_have_the_defaults_of_transformers():
    assert from_hf({"model_type": "wav2vec2"}) == Wav2Vec2Config(feature_projection_dropout=0.0, mask_time_min_spans=2)


def test_no_spec_augment_means_no_masks_and_survives():
    config = from_hf({"model_type": "wav2vec2", "apply_spec_augment": False, "mask_feature_prob": 0.5})
    assert (config.mask_time_prob, config.mask_feature_prob) == (0.0, 0.0)
    fields = to_hf(config)
    # transformers makes the mask embedding only where a probability is positive.
    assert fields["apply_spec_augment"] is False and fields["mask_time_prob"] > 0.0
    assert from_hf(fields) == config


def test_projection_norm_is_read_for_hubert_alone():
    assert not from_hf({"model_type": "hubert", "feat_proj_layer_norm": False}).feature_projection_norm
    assert from_hf({"model_type": "wav2vec2", "feat_proj_layer_norm": False}).feature_projection_norm
    with pytest.raises(ValueError, match="hubert only"):
        to_hf(Wav2Vec2Config(feature_projection_norm=False))


def test_a_type_cannot_have_the_parts_of_another_nor_lack_its_own():
    wavlm = preset("wavlm_base")
    with pytest.raises(ValueError, match="relative_position_buckets=320 exists in models of type wavlm only, not in"):
        to_hf(wavlm, model_type="hubert")
    with pytest.raises(ValueError, match="a model of type wavlm cannot have this architecture: num_buckets is 0"):
        to_hf(preset("base"), model_type="wavlm")
    with pytest.raises(ValueError, match="parts are of different models"):
        usual_type(dataclasses.replace(wavlm, feature_projection_norm=False))


def test_a_published_wavlm_config_becomes_the_preset():
    # As microsoft/wavlm-base has it, without what the network does not read.
    fields = {
        "model_type": "wavlm", "conv_bias": False, "do_stable_layer_norm": False, "feat_extract_norm": "group",
        "num_buckets": 320, "max_bucket_distance": 800, "num_ctc_classes": 80, "replace_prob": 0.5,
        "feat_proj_dropout": 0.1, "mask_time_min_masks": 2, "layerdrop": 0.05, "freeze_feat_extract_train": True,
    }  # fmt: skip
    assert from_hf(fields) == preset("wavlm_base", mask_time_min_spans=2, layer_drop=0.05)


def test_a_published_data2vec_config_becomes_the_preset():
    # As facebook/data2vec-audio-base-960h has it: fields that its class does not read are among them.
    fields = {
        "model_type": "data2vec-audio", "conv_bias": False, "do_stable_layer_norm": True, "feat_extract_norm": "layer",
        "conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5, "num_conv_pos_embedding_groups": 16,
        "feat_proj_dropout": 0.1, "mask_time_min_masks": 2,
    }  # fmt: skip
    assert from_hf(fields) == preset("data2vec_audio_base", mask_time_min_spans=2)
    with pytest.raises(ValueError, match="data2vec-audio"):
        to_hf(preset("data2vec_audio_base"), model_type="wav2vec2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "wav2vec2-phoneme"}, "model_type is 'wav2vec2-phoneme'"),
        ({"model_type": "wav2vec2-bert", "feature_projection_input_dim": 80}, "feature_projection_input_dim is 80"),
        ({"model_type": "wav2vec2-bert", "use_intermediate_ffn_before_adapter": True}, "but add_adapter is not"),
        ({"model_type": "wav2vec2-conformer", "conv_depthwise_kernel_size": 30}, "depthwise_kernel must be odd"),
        ({"model_type": "wav2vec2-conformer", "position_embeddings_type": "absolute"}, "attention_positions must be"),
        ({"model_type": "wav2vec2-conformer", "hidden_act": "gelu_new"}, "activation must be 'gelu' or 'swish'"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"feat_extract_activation": "gelu_new"}, "feat_extract_activation is 'gelu_new'"),
        ({"add_adapter": "yes"}, "add_adapter is 'yes'"),
        ({"add_adapter": True, "adapter_kernel_size": 5}, "length_adapter_kernel=5 with length_adapter_stride=2"),
        ({"model_type": "wavlm", "adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ({"adapter_attn_dim": 16}, "attention_adapter_size must be 0 without stable_layer_norm"),
        ({"model_type": "hubert", "add_adapter": True}, "add_adapter is True"),
        ({"adapter_attn_dim": "16"}, "adapter_attn_dim is '16'"),
        ({"model_type": "hubert", "adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ({"model_type": "wavlm", "num_buckets": 2}, "relative_position_buckets must be 0, or from 4"),
        ({"model_type": "wavlm", "max_bucket_distance": 80}, "below four times relative_position_max_distance"),
        ({"model_type": "data2vec-audio", "num_conv_pos_embeddings": 2000}, "pos_conv_depth must be from 1 to 1000"),
        ({"model_type": "hubert", "conv_pos_batch_norm": True}, "conv_pos_batch_norm is True"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"output_hidden_size": 512}, "output_hidden_size is 512"),
        ({"num_feat_extract_layers": 6}, "num_feat_extract_layers is 6"),
        ({"hidden_size": "768"}, "hidden_size is '768'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"conv_dim": 512}, "conv_dim is 512"),
        ({"conv_bias": 1}, "conv_bias is 1"),
        ({"layerdrop": True}, "layerdrop is True"),
        ({"feat_extract_norm": "batch"}, "feature_norm"),
        ({"num_attention_heads": 7}, "num_heads"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"num_hidden_layers": 10**9}, "num_layers must be from 1 to 1000, got 1000000000"),
        ({"vocab_size": 10**30}, "vocab_size must be a whole number"),
        ({"hidden_size": 12 * 2**16, "num_hidden_layers": 999}, "parameters, at most 1e.11 are supported"),
        ({"conv_kernel": [10, 3]}, "conv_dim, conv_kernel and conv_stride must have one entry per convolution"),
        ({"conv_stride": ["5"] * 7}, "conv_stride is a JSON array"),
        ({"conv_stride": [1024] * 7}, "conv_stride must make a hop of at most"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_epsilon must be a finite number"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_epsilon must not be negative"),
        ({"model_type": {"a": []}}, "model_type is a JSON object"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, fields, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "wav2vec2", **fields}))
    with pytest.raises(ValueError, match=message) as caught:
        read_hf_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", "\xff", '{"conv_kernel": ' + "[" * 100_000, '{"vocab_size": ' + "9" * 5000 + "}"]
)
def test_a_file_that_is_no_config_is_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="fetch it again") as caught:
        read_hf_config(path)
    assert "\n" not in str(caught.value)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_hf_config(tmp_path / "config.json")


def test_leftover_fields_of_convolutions_do_not_matter_where_there_are_none():
    assert from_hf({"model_type": "wav2vec2-bert", "num_feat_extract_layers": 3}).front_end == "log_mel"
