"""Converts Hugging Face's config.json to our architecture and back; refuses what our network does not compute."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.json_files import MalformedFileError, describe, read_object
from models.wav2vec2.config import Wav2Vec2Config

MODEL_TYPES = ("wav2vec2", "hubert")

# Maps our field to theirs and its default in transformers 5.23.
_FIELDS: dict[str, tuple[str, Any]] = {
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

# Fields that must have this value, which is also their default; any other value means another network.
_REQUIRED: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "add_adapter": False,
    "adapter_attn_dim": None,
    "conv_pos_batch_norm": False,
    "quantization_config": None,
}


def from_hf(fields: Mapping[str, Any]) -> Wav2Vec2Config:
    """Builds our architecture from the fields of a Hugging Face config.

    Ignores what only training reads: the least number of feature masks of a row (mask_feature_min_masks; ours is 0),
    the reduction of the loss, and all fields of the quantizer.

    Args:
        fields: config.json of a model of type wav2vec2 or hubert.

    Raises:
        ValueError: If the model is of another type, or a field has an unsupported value; names the field.
    """
    model_type = fields.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type is {_show(model_type)}; supported are {' and '.join(MODEL_TYPES)}")
    for name, wanted in _REQUIRED.items():
        if fields.get(name, wanted) != wanted:
            shown = _show(fields[name])
            raise ValueError(f"{name} is {shown}, which is not supported; only {wanted!r} is")
    ours: dict[str, Any] = {}
    for name, (theirs, default) in _FIELDS.items():
        value = fields.get(theirs, default)
        if not _has_type_of(default, value) and (name, value) != ("mask_time_min_spans", 0):
            raise ValueError(f"{theirs} is {_show(value)}, wanted a value like {default!r}")
        ours[name] = value
    if not fields.get("apply_spec_augment", True):
        ours["mask_time_prob"] = ours["mask_feature_prob"] = 0.0
    if model_type == "hubert":
        ours["feature_projection_norm"] = bool(fields.get("feat_proj_layer_norm", True))
    try:
        config = Wav2Vec2Config.from_dict(ours)
    except ValueError as error:
        raise ValueError(f"{error} (in our field names)") from error
    _check_sizes(fields, config)
    return config


def _check_sizes(fields: Mapping[str, Any], config: Wav2Vec2Config) -> None:
    """Refuses a config that contradicts itself."""
    num_convolutions = fields.get("num_feat_extract_layers", len(config.conv_dim))
    if num_convolutions != len(config.conv_dim):
        raise ValueError(
            f"num_feat_extract_layers is {_show(num_convolutions)}, but conv_dim has {len(config.conv_dim)}"
        )
    # transformers ignores it without adapters, but a value that differs suggests a network above the encoder.
    if fields.get("output_hidden_size") not in (None, config.hidden_size):
        raise ValueError(
            f"output_hidden_size is {_show(fields['output_hidden_size'])}, not hidden_size ({config.hidden_size}): "
            "a network above the encoder is not supported"
        )


def read_hf_config(path: str | os.PathLike[str]) -> tuple[Wav2Vec2Config, dict[str, Any]]:
    """Reads a Hugging Face config.json.

    Returns:
        Our architecture and the file's own fields.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, or not supported; names the file and the field.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a folder written by save_pretrained of transformers")
    try:
        fields = read_object(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; fetch it again") from error
    try:
        return from_hf(fields), fields
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_hf(config: Wav2Vec2Config, *, model_type: str = "wav2vec2", blank_id: int = 0) -> dict[str, Any]:
    """Returns the config.json from which transformers builds the same network with a CTC head.

    Args:
        config: Our architecture.
        model_type: "wav2vec2" or "hubert".
        blank_id: Row of the CTC blank in the head.

    Raises:
        ValueError: If the type is unknown or cannot have this architecture.
    """
    _check_model_type(model_type, config)
    fields: dict[str, Any] = {
        "architectures": ["Wav2Vec2ForCTC" if model_type == "wav2vec2" else "HubertForCTC"],
        "model_type": model_type,
        "dtype": "float32",
        "pad_token_id": blank_id,
        "num_feat_extract_layers": len(config.conv_dim),
        "mask_feature_min_masks": 0,
    }
    for name, (theirs, _) in _FIELDS.items():
        value = getattr(config, name)
        fields[theirs] = list(value) if isinstance(value, tuple) else value
    fields.update((name, value) for name, value in _REQUIRED.items() if value is not None and name != "add_adapter")
    if model_type == "hubert":
        fields["feat_proj_layer_norm"] = config.feature_projection_norm
    else:
        del fields["conv_pos_batch_norm"]
    fields["apply_spec_augment"] = config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0
    if not fields["apply_spec_augment"]:
        # Without a positive probability transformers makes no mask embedding and refuses ours.
        fields["mask_time_prob"] = _FIELDS["mask_time_prob"][1]
    return fields


def _check_model_type(model_type: str, config: Wav2Vec2Config) -> None:
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type is {model_type!r}; supported are {' and '.join(MODEL_TYPES)}")
    if model_type == "wav2vec2" and not config.feature_projection_norm:
        raise ValueError("feature_projection_norm=False exists in models of type hubert only")


def _show(value: Any) -> str:
    return describe(value) if isinstance(value, (dict, list)) else repr(value)[:60]


def _has_type_of(default: Any, value: Any) -> bool:
    """Returns whether a field's value has the type of its default; JSON writes whole floats as integers."""
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and all(_has_type_of(1, item) for item in value)
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    is_number = isinstance(value, int | (float if isinstance(default, float) else int)) and not isinstance(value, bool)
    return is_number and (isinstance(default, float) or value > 0)
