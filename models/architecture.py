"""Resolves the model architecture from a preset name, the initial weights or a config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import storage
from common.workdir_layout import CONFIG_FILE, find_above
from models.hub.signature import is_saved_model
from models.hugging_face.config import read_hf_config
from models.hugging_face.files import read_preprocessing
from models.wav2vec2 import pretrained
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.config import preset as config_of
from models.wav2vec2.presets import PRESETS

AUTO = "auto"
_DEFAULT = "base"
# Parts of the names of fields that the run's config sets; they change no shape and no inference result.
_RECIPE = (
    "_dropout", "layer_drop", "mask_time_", "mask_feature_", "vocab_size", "fused_ops", "gradient_checkpointing",
    "train_adapters_only", "lora_", "bottleneck_size",
)  # fmt: skip
# Initialization of random weights; equal architectures may differ in it.
_INITIALIZATION = ("conv_init", "initializer_range")
# Fields that are recorded only where they are not the default: runs from before they existed lack them.
_LATER_NAMES = (
    "normalize_waveform", "pos_conv_norm", "pos_conv_depth", "relative_position_buckets",
    "relative_position_max_distance", "attention_adapter_size", "front_end", "layer_kind", "activation",
    "attention_positions", "rotary_base", "relative_key_left", "relative_key_right", "depthwise_kernel",
    "depthwise_causal", "depthwise_norm", "num_length_adapters", "length_adapter", "length_adapter_kernel",
    "length_adapter_stride", "length_adapter_activation", "length_adapter_feed_forward", "output_size",
)  # fmt: skip
_LATER = {name: getattr(Wav2Vec2Config(), name) for name in _LATER_NAMES}
_MAX_DIFFERENCES = 3


def find_architecture(*, preset: str, init: str = "", run: str = "") -> dict[str, Any]:
    """Returns the architecture of a native model as fields of `Wav2Vec2Config`, or {} if `preset` names it.

    Args:
        preset: Name in `models.wav2vec2.presets.PRESETS`; a config.json, ours or of Hugging Face, or a folder with one;
            or "auto" for the architecture of `init`, which is "base" without one.
        init: Weights to start from: a folder of `models.wav2vec2.pretrained`, or a checkpoint inside one; "" for random
            weights.
        run: Workdir of the run if it has started before; its architecture is used and `init` is ignored.

    Returns:
        Fields as JSON holds them, without dropout rates, masks and the size of the vocabulary; {} for a named preset
        that normalizes recordings.

    Raises:
        ValueError: If there is no such preset or file, or the architecture of `init` differs from the named preset.
        FileNotFoundError: If the folder does not record an architecture.
    """
    if preset in PRESETS:
        if init and not run:
            _check_same(preset, init)
        # A run asks its config whether recordings are normalized, and takes a name alone for yes.
        return {} if config_of(preset).normalize_waveform else _fields(config_of(preset))
    if run:
        return _fields(_config_of(run))
    if preset != AUTO:
        return _fields(_read_file(preset))
    return _fields(_config_of(init) if init else config_of(_DEFAULT))


def _read_file(path: str) -> Wav2Vec2Config:
    """Reads a config.json, ours or of Hugging Face, or the one in a folder."""
    file = storage.join(path, CONFIG_FILE) if storage.is_dir(path) else path
    if not storage.is_file(file):
        raise ValueError(
            f"model.preset={path!r} is neither a name nor a config.json; known are {AUTO}, {', '.join(PRESETS)}"
        )
    if not pretrained.is_hugging_face(file):
        return pretrained.read_config(file)
    config, _ = read_hf_config(file)
    normalizes, _ = read_preprocessing(Path(file).parent, config.front_end)
    return dataclasses.replace(config, normalize_waveform=normalizes)


def _config_of(init: str) -> Wav2Vec2Config:
    """Reads the architecture of weights.

    Raises:
        ValueError: If they must be converted first, or cannot initialize a native model.
        FileNotFoundError: If no config.json belongs to them.
    """
    folder = _folder_of(init)
    if folder is not None:
        return pretrained.read_config(folder)
    if is_saved_model(init):
        raise ValueError(
            f"{init}: a SavedModel (model.init); set model.source=hub, model.hub_handle={init} and model.init= instead"
        )
    raise FileNotFoundError(
        f"{init}: no config.json there or above that tells the architecture; give a folder of python -m models.convert "
        f"or the workdir of a run, or name the architecture: model.preset={', '.join(PRESETS)}"
    )


def _folder_of(init: str) -> str | None:
    """Returns the folder of the config.json at `init` or above it; None without one."""
    path = find_above(init, CONFIG_FILE)
    return storage.parent(path) if path else None


def _check_same(name: str, init: str) -> None:
    """Checks that the architecture recorded with weights is that of a preset.

    Raises:
        ValueError: If fields differ; names the first ones.
    """
    if _folder_of(init) is None and not is_saved_model(init):
        return  # weights without a config.json are checked when they are read
    wanted, found = _LATER | _fields(config_of(name)), _LATER | _fields(_config_of(init))
    differences = [
        f"{field} {found[field]} instead of {wanted[field]}"
        for field in wanted
        if field not in _INITIALIZATION and found[field] != wanted[field]
    ]
    if differences:
        more = f" and {len(differences) - _MAX_DIFFERENCES} more" if len(differences) > _MAX_DIFFERENCES else ""
        raise ValueError(
            f"{init} (model.init) has another architecture than model.preset={name}: "
            f"{', '.join(differences[:_MAX_DIFFERENCES])}{more}; model.preset={AUTO} takes that of model.init"
        )


def _fields(config: Wav2Vec2Config) -> dict[str, Any]:
    fields: Mapping[str, Any] = dataclasses.asdict(config)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if not any(part in name for part in _RECIPE) and not (name in _LATER and value == _LATER[name])
    }
