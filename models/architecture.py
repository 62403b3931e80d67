"""Which architecture a run has where its preset does not name one: that of the weights it starts from, or of a file."""

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
# Of these the run's config decides: they change no shape and nothing that an inference computes.
_RECIPE = ("_dropout", "layer_drop", "mask_time_", "mask_feature_", "vocab_size", "regions", "recompute")
# These decide how a fresh model starts, so two architectures may differ in them.
_START = ("conv_init", "initializer_range")
_MAX_DIFFERENCES = 3


def find_architecture(*, preset: str, init: str = "", run: str = "") -> dict[str, Any]:
    """Returns the architecture of a native model as fields of `Wav2Vec2Config`, or {} if `preset` names it.

    Args:
        preset: A name of `models.wav2vec2.presets.PRESETS`; a config.json, ours or of Hugging Face, or a folder with
            one; or "auto", that of `init`, and "base" without one.
        init: Weights to start from: a folder of `models.wav2vec2.pretrained`, or a checkpoint inside one; "" for random
            weights.
        run: A workdir that the run has made before: its architecture stands, and `init` is not looked at.

    Returns:
        What decides shapes and arithmetic, without dropout rates, masks and the vocabulary's size; as JSON holds it.

    Raises:
        ValueError: If there is no such preset or file, or `init` has another architecture than the preset named.
        FileNotFoundError: If an architecture is asked of a folder that does not tell it.
    """
    if preset in PRESETS:
        if init and not run:
            _check_same(preset, init)
        return {}
    if run:
        return _fields(_config_of(run))
    if preset != AUTO:
        return _fields(_read_file(preset))
    return _fields(_config_of(init) if init else config_of(_DEFAULT))


def _read_file(path: str) -> Wav2Vec2Config:
    """Reads a config.json, or the one in a folder, of either kind."""
    file = storage.join(path, CONFIG_FILE) if storage.is_dir(path) else path
    if not storage.is_file(file):
        raise ValueError(
            f"model.preset={path!r} is neither a name nor a config.json; known are {AUTO}, {', '.join(PRESETS)}"
        )
    if not pretrained.is_hugging_face(file):
        return pretrained.read_config(file)
    normalizes, _ = read_preprocessing(Path(file).parent)
    return dataclasses.replace(read_hf_config(file)[0], normalize_waveform=normalizes)


def _config_of(init: str) -> Wav2Vec2Config:
    """Reads the architecture of weights.

    Raises:
        ValueError: If they are of a kind that has to be converted, or cannot start a native model.
        FileNotFoundError: If nothing tells it.
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
    """Returns the folder of a config.json at `init`, or above a checkpoint inside a workdir."""
    path = find_above(init, CONFIG_FILE)
    return storage.parent(path) if path else None


def _check_same(name: str, init: str) -> None:
    """Checks that weights, as far as they tell, have the architecture of a preset.

    Raises:
        ValueError: Names the first fields that differ.
    """
    if _folder_of(init) is None and not is_saved_model(init):
        return  # bare weights: whether they fit shows when they are read
    wanted, found = _fields(config_of(name)), _fields(_config_of(init))
    differences = [
        f"{field} {found.get(field, True)} instead of {wanted.get(field, True)}"
        for field in wanted | found
        if field not in _START and found.get(field, True) != wanted.get(field, True)
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
        # Runs from before there was a choice record none: they normalize, as every architecture with a name does.
        if not any(part in name for part in _RECIPE) and (name, value) != ("normalize_waveform", True)
    }
