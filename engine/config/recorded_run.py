"""Reads the config that a run recorded in its workdir."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.json_files import Kind, MalformedFileError, field, optional_field
from common.weight_names import repository_hint

# Only the config.json of a converted folder has this field at its top level.
_CONVERTED_FIELD = "hidden_size"
# LoRA and bottleneck adapters: these decide which variables there are beside those of the architecture.
ADAPTATION_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "bottleneck_size")
ARCHITECTURE_FIELDS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feature_projection_dropout",
    "convolution_dropout",
    "final_dropout",
    "layer_drop",
    "mask_time_prob",
    "mask_time_length",
    "mask_time_min_spans",
    "mask_feature_prob",
    "mask_feature_length",
    "fused_ops",
    "gradient_checkpointing",
    "train_adapters_only",
)
# Fields that older versions did not have, with the values that do what those versions did.
LATER_FIELDS: dict[str, Any] = {
    "checkpoint.background": False,
    "checkpoint.every_epochs": 0.0,
    "data.more_train": {},
    "data.sampling_alpha": 1.0,
    "data.train.held_out_ratio": 0.0,
    "data.train.text_column": "",
    "data.train.weight": 1.0,
    "eval.every_epochs": 0.0,
    "eval.normalizers": (),
    "eval.slices": (),
    "model.bottleneck_size": 0,
    "model.lora_alpha": 16.0,
    "model.lora_dropout": 0.0,
    "model.lora_rank": 0,
    "model.lora_targets": ("q_proj", "v_proj"),
    "model.convolution_dropout": 0.1,
    "model.mask_time_min_spans": 0,
    "model.train_adapters_only": False,
    "runtime.deterministic": False,
    "runtime.loop_in_graph": False,
    "runtime.stop_within_secs": 0.0,
    "train.cr_ctc_mask_factor": 2.5,
    "train.cr_ctc_scale": 0.0,
    "train.cr_ctc_warmup_updates": 0,
    "train.hold_ratio": 0.0,
    "train.intermediate_ctc_layers": (),
    "train.intermediate_ctc_weight": 0.3,
    "train.loss_divisor": "utterances",
    "train.microbatch_rows": 0,
    "train.microbatch_secs": 0.0,
    "train.num_epochs": 0.0,
    "train.warmup_ratio": 0.0,
}
_TYPES = {
    "fused_ops": str,
    "gradient_checkpointing": bool,
    "train_adapters_only": bool,
    "lora_rank": int,
    "lora_targets": list,
    "bottleneck_size": int,
    "mask_time_length": int,
    "mask_time_min_spans": int,
    "mask_feature_length": int,
}  # the others: float
# The group, name and type of each field of a run's config that inference reads, and whether every version wrote it.
_READ_FIELDS: tuple[tuple[str, str, type, bool], ...] = (
    ("model", "preset", str, True),
    ("model", "init", str, False),
    ("model", "source", str, False),
    ("model", "hub_handle", str, False),
    ("model", "architecture", dict, False),
    ("model", "freeze_feature_encoder", bool, True),
    *(("model", name, _TYPES.get(name, float), False) for name in (*ARCHITECTURE_FIELDS, *ADAPTATION_FIELDS)),
    ("data", "bucket_boundaries_samples", list, False),
    ("data", "concat_max_secs", float, False),
    ("data", "concat_max_utterances", int, False),
    ("data", "max_duration_secs", float, False),
    ("data", "on_rate_mismatch", str, True),
    ("data", "text_normalization", str, True),
    ("data", "eval", dict, True),
    ("train", "precision", str, True),
)  # fmt: skip


def load_run(checkpoint: str) -> tuple[ConfigDict, str]:
    """Returns the config of the run that wrote a checkpoint, and the folder of the run.

    A folder written by `python -m models.convert` counts as a run without training.

    Args:
        checkpoint: A workdir, or a checkpoint inside one; or a converted folder.

    Raises:
        ValueError: It has no config.json, or a damaged one, or the config.json of a Hugging Face model.
    """
    if not checkpoint:
        raise ValueError("--checkpoint is empty: give the workdir of a training run")
    path = layout.find_above(checkpoint, layout.CONFIG_FILE)
    if path is None:
        raise ValueError(
            f"{checkpoint}: no config.json there or above; give the workdir of a training run to --checkpoint"
            f"{repository_hint(checkpoint)}"
        )
    folder = storage.parent(path)
    fields = layout.read_config(path)
    if "model_type" in fields:
        raise ValueError(
            f"{path}: is of a Hugging Face model; run python -m models.convert --input={folder} --output=DIR first "
            "and give DIR"
        )
    if _CONVERTED_FIELD in fields:
        fields = _untrained_run(fields, path)
    _check_fields(fields, path)
    return ConfigDict(fields), folder


def run_folder(checkpoint: str) -> str:
    """Returns the folder of the config.json at a checkpoint or above, "" where there is none."""
    path = layout.find_above(checkpoint, layout.CONFIG_FILE) if checkpoint else None
    return storage.parent(path) if path else ""


def read_run_field(run: str, group: str, name: str, kind: type[Kind]) -> Kind:
    """Returns one field of the config that a run recorded.

    Args:
        run: A workdir, or a checkpoint in one.
        group: The group of the field, such as "train".
        name: The name of the field in its group.
        kind: The type that the field must have.

    Raises:
        ValueError: There is no such run, or its config has no such field.
    """
    path = layout.find_above(run, layout.CONFIG_FILE)
    if path is None:
        raise ValueError(f"{run}: no config.json there or above; give the workdir of a training run")
    return field(field(layout.read_config(path), group, dict, path), name, kind, f"{path}, {group}")


def read_adaptation(run: str) -> dict[str, Any]:
    """Returns the fields of LoRA and bottleneck adapters that a run, or a converted folder, recorded.

    Args:
        run: A workdir, a converted folder, or a checkpoint in one; without a config.json there is no adaptation.
    """
    path = layout.find_above(run, layout.CONFIG_FILE)
    fields = layout.read_config(path) if path else {}
    model = fields.get("model", fields)
    defaults = {name: LATER_FIELDS[f"model.{name}"] for name in ADAPTATION_FIELDS}
    if not isinstance(model, dict):
        return defaults
    return {
        name: tuple(found) if isinstance(found := model.get(name, default), list) else found
        for name, default in defaults.items()
    }


def list_later_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns `LATER_FIELDS` with those of data.augment, where a strength means nothing while its probability is 0."""
    augment = config.data.get("augment", {})
    off = {name: 0.0 if name.endswith("_prob") else strength for name, strength in augment.items()}
    texts = {f"data.more_train.{name}.text_column": "" for name in config.data.get("more_train", {})}
    return {**LATER_FIELDS, **texts, **{f"data.augment.{name}": value for name, value in off.items()}}


def with_recorded_masks(config: ConfigDict, *, run: str) -> ConfigDict:
    """Returns the config without a fewest number of masks if that of a run, of an older version, has no such field.

    Args:
        config: The config, whose default draws masks in another way than the run did until now.
        run: A workdir that resumes.
    """
    path = layout.find_above(run, layout.CONFIG_FILE)
    name = "mask_time_min_spans"
    if path is None or not config.model.get(name) or name in field(layout.read_config(path), "model", dict, path):
        return config
    logging.info(
        "%s: of a version without model.%s, so the run continues with 0 in place of %d", path, name, config.model[name]
    )
    found = ConfigDict(config.to_dict())
    found.model[name] = 0
    return found.lock()


def _check_fields(fields: Mapping[str, Any], path: str) -> None:
    """Checks that a run's config has the fields that inference reads, with the right types.

    Raises:
        MalformedFileError: Names the field.
    """
    for group, name, kind, is_needed in _READ_FIELDS:
        found = field(fields, group, dict, path)
        if is_needed or name in found:
            field(found, name, kind, f"{path}, {group}")
    field(fields, "seed", int, path)
    sets = fields["data"]["eval"]
    for name in sets:
        field(sets, name, dict, f"{path}, data.eval")
    for name in ("decode", "eval"):
        optional_field(fields, name, dict, path, {})


def _untrained_run(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the config of a run for a converted folder, with the fields that inference reads."""
    for name in ARCHITECTURE_FIELDS:
        if name not in fields and f"model.{name}" not in LATER_FIELDS:
            raise MalformedFileError(f"{path} has no {name!r}; convert the model again")
    # The vocab.json beside it has its own size.
    recipe = {name: fields[name] for name in (*ARCHITECTURE_FIELDS, *ADAPTATION_FIELDS) if name in fields}
    architecture = {name: value for name, value in fields.items() if name not in (*recipe, "vocab_size")}
    return {
        "seed": 0,
        "model": {"preset": "auto", "architecture": architecture, "freeze_feature_encoder": False, **recipe},
        "data": {
            "on_rate_mismatch": "resample",
            "text_normalization": _guess_text_normalization(storage.parent(path)),
            "eval": {},
        },
        "train": {"precision": "float32"},
    }


def _guess_text_normalization(folder: str) -> str:
    """Returns the style of the case that a model writes, by its vocab.json; texts are compared and aligned in it."""
    vocab = storage.join(folder, layout.VOCAB_FILE)
    tokens = layout.read_object(vocab) if storage.is_file(vocab) else {}
    return "unicode" if "".join(token for token in tokens if len(token) == 1).islower() else "librispeech"
