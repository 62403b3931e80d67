"""Converts Hugging Face's config.json to our architecture and back; refuses what our network does not compute."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.json_files import MalformedFileError, describe, read_object
from models.hugging_face.model_types import MODEL_TYPES, Fields, ModelType
from models.wav2vec2.config import Wav2Vec2Config

_MAY_BE_ZERO = (("mask_time_min_spans", 0), ("relative_key_left", 0), ("relative_key_right", 0))
# Fields of ours that have no place in their config.json: how a fresh model starts and how it is computed.
_OURS_ALONE = (
    "conv_init", "fused_ops", "gradient_checkpointing", "normalize_waveform", "train_adapters_only", "lora_rank",
    "lora_alpha", "lora_dropout", "lora_targets", "bottleneck_size",
)  # fmt: skip


def from_hf(fields: Mapping[str, Any]) -> Wav2Vec2Config:
    """Builds our architecture from the fields of a Hugging Face config.

    Ignores what only training reads: the least number of feature masks of a row (mask_feature_min_masks; ours is 0),
    the reduction of the loss, and all fields of the quantizer.

    Args:
        fields: config.json of a model of one of `MODEL_TYPES`.

    Raises:
        ValueError: If the model is of another type, or a field has an unsupported value; names the field.
    """
    known = _known_type(fields.get("model_type"))
    for name, wanted in known.all_required.items():
        if fields.get(name, wanted) != wanted:
            shown = _show(fields[name])
            raise ValueError(f"{name} is {shown}, which is not supported; only {wanted!r} is")
    ours: dict[str, Any] = dict(known.fixed)
    for name, (theirs, default) in {**known.fields, **_length_adapter_of(known, fields)}.items():
        value = fields.get(theirs, default)
        value = known.null.get(theirs) if value is None else value
        if not _has_type_of(default, value) and (name, value) not in _MAY_BE_ZERO:
            raise ValueError(f"{theirs} is {_show(value)}, wanted a value like {default!r}")
        ours[name] = 0 if value is None else value  # a part that is absent is null in their config
    if "num_length_adapters" in ours and fields.get("output_hidden_size") not in (None, ours["hidden_size"]):
        ours["output_size"] = fields["output_hidden_size"]
    if not fields.get("apply_spec_augment", True):
        ours["mask_time_prob"] = ours["mask_feature_prob"] = 0.0
    try:
        config = Wav2Vec2Config.from_dict(ours)
    except ValueError as error:
        raise ValueError(f"{error} (in our field names)") from error
    _check_sizes(fields, config)
    return config


def _length_adapter_of(known: ModelType, fields: Mapping[str, Any]) -> Fields:
    """Returns the fields to read about layers behind the encoder; none without add_adapter."""
    adds_adapter = fields.get("add_adapter", False)
    if not isinstance(adds_adapter, bool):
        raise ValueError(f"add_adapter is {_show(adds_adapter)}, wanted a value like False")
    if not adds_adapter and fields.get("use_intermediate_ffn_before_adapter"):
        raise ValueError("use_intermediate_ffn_before_adapter is true, but add_adapter is not")
    return known.length_adapter if adds_adapter else {}


def _check_sizes(fields: Mapping[str, Any], config: Wav2Vec2Config) -> None:
    """Refuses a config that contradicts itself."""
    num_convolutions = fields.get("num_feat_extract_layers", len(config.conv_dim))
    if config.front_end == "convolutions" and num_convolutions != len(config.conv_dim):
        raise ValueError(
            f"num_feat_extract_layers is {_show(num_convolutions)}, but conv_dim has {len(config.conv_dim)}"
        )
    # transformers ignores it without adapters, but a value that differs suggests a network above the encoder.
    if not config.num_length_adapters and fields.get("output_hidden_size") not in (None, config.hidden_size):
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
        wanted = "give a folder written by save_pretrained of transformers"
        if Path(path).with_name("adapter_config.json").is_file():
            wanted = "this is an adapter: give it as --peft, and its base model as --input"
        raise FileNotFoundError(f"{path}: no such file; {wanted}")
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
        model_type: One of `MODEL_TYPES`.
        blank_id: Row of the CTC blank in the head.

    Raises:
        ValueError: If the type is unknown or cannot have this architecture.
    """
    known = _known_type(model_type)
    _check_fields(model_type, known, config)
    fields: dict[str, Any] = {
        "architectures": [known.architecture],
        "model_type": model_type,
        "dtype": "float32",
        "pad_token_id": blank_id,
        "mask_feature_min_masks": 0,
    }
    if config.front_end == "convolutions":
        fields["num_feat_extract_layers"] = len(config.conv_dim)
    shown = known.fields
    if config.num_length_adapters:
        shown = {**shown, **known.length_adapter}
        fields |= {"add_adapter": True, "output_hidden_size": config.head_input_size}
    for name, (theirs, default) in shown.items():
        value = getattr(config, name)
        fields[theirs] = list(value) if isinstance(value, tuple) else value
        if default is None and not value:
            del fields[theirs]
    if config.attention_positions == "none" and "attention_positions" in known.fields:
        fields["position_embeddings_type"] = None
    fields.update((name, value) for name, value in known.all_required.items() if value not in (None, False))
    fields["apply_spec_augment"] = config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0
    if not fields["apply_spec_augment"]:
        # Without a positive probability transformers makes no mask embedding and refuses ours.
        fields["mask_time_prob"] = known.fields["mask_time_prob"][1]
    try:
        from_hf(fields)
    except ValueError as error:
        raise ValueError(f"a model of type {model_type} cannot have this architecture: {error}") from error
    return fields


def usual_type(config: Wav2Vec2Config) -> str:
    """Returns the first model type that can have an architecture."""
    for name in MODEL_TYPES:
        with contextlib.suppress(ValueError):
            to_hf(config, model_type=name)
            return name
    raise ValueError("no model type of transformers has this architecture: its parts are of different models")


def _known_type(model_type: Any) -> ModelType:
    if isinstance(model_type, str) and model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type]
    raise ValueError(f"model_type is {_show(model_type)}; supported are {', '.join(MODEL_TYPES)}")


def _check_fields(model_type: str, known: ModelType, config: Wav2Vec2Config) -> None:
    """Refuses a value that a model type has no field for."""
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name in known.fields or name in _OURS_ALONE or value == known.fixed.get(name, field.default):
            continue
        if config.num_length_adapters and (name in known.length_adapter or name == "output_size"):
            continue
        others = [other for other, its in MODEL_TYPES.items() if name in its.fields or its.fixed.get(name) == value]
        where = f"in models of type {', '.join(others)} only" if others else "in no other model"
        raise ValueError(f"{name}={value!r} exists {where}, not in {model_type}")


def _show(value: Any) -> str:
    return describe(value) if isinstance(value, (dict, list)) else repr(value)[:60]


def _has_type_of(default: Any, value: Any) -> bool:
    """Returns whether a field's value has the type of its default; JSON writes whole floats as integers.

    A default of None stands for a count of something that may be absent.
    """
    if default is None:
        return value is None or _has_type_of(1, value)
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and all(_has_type_of(1, item) for item in value)
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    is_number = isinstance(value, int | (float if isinstance(default, float) else int)) and not isinstance(value, bool)
    return is_number and (isinstance(default, float) or value > 0)
