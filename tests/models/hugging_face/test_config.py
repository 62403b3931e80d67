"""Hugging Face's config.json: every field there and back, defaults, and what is refused by name."""

from __future__ import annotations

import dataclasses
import json

import pytest

from models.hugging_face.config import from_hf, read_hf_config, to_hf
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
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_targets",
        "bottleneck_size",
    )
}

# No other field has its default value, ours or theirs.
ALL_DIFFERENT = Wav2Vec2Config(
    vocab_size=40, conv_dim=(8, 16), conv_kernel=(9, 4), conv_stride=(4, 3), conv_bias=True, feature_norm="layer",
    feature_projection_norm=False, hidden_size=48, num_layers=3, num_heads=6, intermediate_size=72, pos_conv_kernel=7,
    pos_conv_groups=8, stable_layer_norm=True, layer_norm_epsilon=1e-4, hidden_dropout=0.01, attention_dropout=0.02,
    activation_dropout=0.03, feature_projection_dropout=0.04, final_dropout=0.05, layer_drop=0.06, mask_time_prob=0.07,
    mask_time_length=8, mask_time_min_spans=1, mask_feature_prob=0.09, mask_feature_length=11, initializer_range=0.12,
)  # fmt: skip


def test_every_field_survives_there_and_back():
    defaults = Wav2Vec2Config()
    for field in dataclasses.fields(Wav2Vec2Config):
        is_default = getattr(ALL_DIFFERENT, field.name) == getattr(defaults, field.name)
        assert is_default == (field.name in OURS_ALONE), field.name
    assert from_hf(json.loads(json.dumps(to_hf(ALL_DIFFERENT, model_type="hubert")))) == ALL_DIFFERENT


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_there_and_back(name):
    assert from_hf(to_hf(preset(name))) == preset(name, **OURS_ALONE)


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "wav2vec2-conformer"}, "model_type is 'wav2vec2-conformer'"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"feat_extract_activation": "gelu_new"}, "feat_extract_activation is 'gelu_new'"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
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
