"""Checks the config of a run, alone and against its data, weights and vocabulary, before anything slow begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from common import renamed, storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError
from common.spread_paths import is_spread
from common.weight_names import is_weight_name
from engine.config import builders, field_rules
from engine.config.compilation import NOT_COMPILED, check_compilation
from engine.config.early_checks import TRAIN_FROM_RANDOM, describe_missing_corpus, describe_missing_weights
from engine.config.recorded_run import LATER_FIELDS, read_adaptation
from engine.protocols import AcousticModel, Tokenizer
from engine.training.ema import ema_name
from engine.training.schedules import SCHEDULES

# What tells two views of a row apart.
_RANDOM_FIELDS = (
    "mask_time_prob", "mask_feature_prob", "hidden_dropout", "attention_dropout", "activation_dropout",
    "feature_projection_dropout", "final_dropout",
)  # fmt: skip
_START_FROM_WEIGHTS = (
    "set --config.model.init=WEIGHTS, which python -m models.convert --input=HF_FOLDER --output=WEIGHTS makes; or "
    f"{TRAIN_FROM_RANDOM}"
)


def check_values(config: ConfigDict) -> None:
    """Checks that a run has every field of the training loop, and that each field holds an allowed value.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    fields = config.to_dict()
    names = dict(field_rules.flatten(fields))
    if "train.accum_steps" in names:
        raise ValueError(f"train.accum_steps={names['train.accum_steps']}: {renamed.explain_accum_steps(fields)}")
    missing = [name for name in field_rules.TRAINING_RULES if name not in names and name not in LATER_FIELDS]
    if missing:
        raise ValueError(f"the config has no field {missing[0]}: start it from configs.base.get_config()")
    field_rules.check_values(fields, choices={"train.schedule": SCHEDULES})


def check_fields(config: ConfigDict) -> None:
    """Checks the fields of a run, and fields against each other, before anything is built.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    check_values(config)
    check_compilation(config)
    if "train" in config.data.get("more_train", {}):
        raise ValueError("data.more_train.train: data.train has this name among the corpora; choose another name")
    if config.train.ema_decay:
        taken = [name for name in config.data.eval if ema_name(name) in config.data.eval]
        if taken:
            raise ValueError(
                f"data.eval.{ema_name(taken[0])}: train.ema_decay uses this name for the metrics of {taken[0]} with "
                "averaged weights; rename the set"
            )
    if config.data.eval and config.eval.best_metric_set not in config.data.eval:
        raise ValueError(
            f"eval.best_metric_set={config.eval.best_metric_set!r} names no evaluation set; data.eval has "
            f"{', '.join(sorted(config.data.eval))}"
        )


def can_be_longer(config: ConfigDict, *, before: int, num_updates: int, step: int) -> bool:
    """Tells whether a run can be extended: whether its updates so far had the learning rates of the longer run.

    Args:
        config: The config of the run, see configs/base.py.
        before: The run's number of updates so far.
        num_updates: The run's new number of updates.
        step: Number of updates done.
    """
    schedules = []
    for number in (before, num_updates):
        copy = ConfigDict(config.to_dict())
        copy.train.num_updates = number
        schedules.append(builders.build_learning_rate(copy))
    return step <= schedules[0].num_updates_shared_with(schedules[1])


def how_to_go_on(config: ConfigDict, *, workdir: str) -> str:
    """Returns what to do with a run that cannot be extended."""
    return (
        f"its learning rates are those of a run of that length (train.schedule={config.train.schedule}), so continue "
        f"from its weights in a new run: --workdir=ANOTHER --config.model.init={workdir} --config.model.init_head=True"
    )


def check_longer(saved: Mapping[str, Any], config: ConfigDict, *, workdir: str, step: int) -> tuple[str, ...]:
    """Returns the fields that may differ from a workdir's config because the run is extended.

    Args:
        saved: The config in the workdir.
        config: The config of this process.
        workdir: The folder of the run, for the message.
        step: Number of updates done.

    Raises:
        ValueError: The run cannot be extended, because its learning rates would match no single run.
    """
    train = saved.get("train")
    before, now = train.get("num_updates") if isinstance(train, Mapping) else None, config.train.num_updates
    if not isinstance(before, int) or not 0 < before < now:
        return ()
    try:
        is_right = can_be_longer(config, before=before, num_updates=now, step=step)
    except ValueError:  # other fields differ too; the caller names them
        return ()
    if is_right:
        return ("train.num_updates", "train.num_epochs")
    raise ValueError(
        f"train.num_updates was {before}, is {now}, and {workdir} is at update {step}: "
        f"{how_to_go_on(config, workdir=workdir)}"
    )


def check_tpu(config: ConfigDict) -> None:
    """Refuses fields that a TPU cannot use: it compiles the step for one shape, in float32 or bfloat16.

    Raises:
        ValueError: Names the field and a value that fits.
    """
    if config.data.num_buckets != 1 and len(config.data.bucket_boundaries_samples) != 1:
        raise ValueError(
            f"data.num_buckets={config.data.num_buckets}: a TPU needs rows of one length; set data.num_buckets=1 and a "
            "data.max_duration_secs that suits the corpus"
        )
    if config.train.precision == "mixed_float16":
        raise ValueError("train.precision=mixed_float16: a TPU has no float16; set mixed_bfloat16 or float32")
    if config.model.get("fused_ops") == "on":
        raise ValueError("model.fused_ops=on: a TPU compiles the step as a whole; set auto or off")
    if (backend := config.get("runtime", {}).get("ctc_backend", "auto")) in NOT_COMPILED:
        raise ValueError(f"runtime.ctc_backend={backend}: a TPU cannot compute it; set auto, scan or blocks")


def check_inputs(config: ConfigDict, init: str, *, evaluate: bool) -> None:
    """Checks that the corpora and the initial weights exist.

    Args:
        config: The config of the run, see configs/base.py.
        init: The weights to start from; "" = none.
        evaluate: Whether the run reads its evaluation sets.

    Raises:
        ValueError: Names what is missing, and the command that makes it.
    """
    more = config.data.get("more_train", {})  # runs of older versions have one corpus
    for fields in (config.data.train, *more.values(), *(config.data.eval.values() if evaluate else ())):
        check_corpus(config, fields)
    if init and not (storage.exists(init) or storage.exists(f"{init}.index")):
        raise ValueError(describe_missing_weights(init))


def check_frozen(config: ConfigDict, *, is_fresh: bool = True) -> None:
    """Checks that frozen variables are trained ones; a feature encoder that stays random spoils every result.

    Args:
        config: The config of the run.
        is_fresh: Whether the run is new. A run that resumes is warned, not refused.

    Raises:
        ValueError: Says what to set.
    """
    if fault := find_frozen_random(config):
        if is_fresh:
            raise ValueError(fault)
        logging.warning("%s", fault)
    model = config.model
    if is_fresh and not model.init and model.get("source", "native") == "native" and model.freeze_encoder_updates:
        logging.warning(
            "model.freeze_encoder_updates=%d: the first updates train the head on an encoder that is random, as "
            "model.init is empty; set --config.model.freeze_encoder_updates=0",
            model.freeze_encoder_updates,
        )


def find_frozen_random(config: ConfigDict) -> str:
    """Returns the error message for frozen variables that are never trained; "" if there are none."""
    model = config.model
    if model.get("source", "native") != "native":
        return ""  # a SavedModel comes with its weights
    if not model.init:
        return _find_frozen_without_init(model, num_updates=config.train.num_updates)
    if model.freeze_feature_encoder and not is_weight_name(model.init) and (origin := _random_origin(model.init)):
        return (
            f"model.freeze_feature_encoder=True, but the feature encoder of {model.init} (model.init) is random: the "
            f"run in {origin} began with random weights and had it frozen; {_START_FROM_WEIGHTS}"
        )
    return ""


def _find_frozen_without_init(model: ConfigDict, *, num_updates: int) -> str:
    """Returns `find_frozen_random` of a model that starts from random weights."""
    if model.freeze_feature_encoder:
        return (
            "model.freeze_feature_encoder=True, but model.init is empty: the feature encoder would stay random for "
            f"ever; {_START_FROM_WEIGHTS}"
        )
    if model.get("train_adapters_only", False):
        return (
            "model.train_adapters_only=True, but model.init is empty: all but adapters and head would stay random for "
            "ever; set --config.model.train_adapters_only=False, or --config.model.init=WEIGHTS of an MMS model"
        )
    adapted = next((name for name in ("lora_rank", "bottleneck_size") if model.get(name, 0)), "")
    if adapted:
        return (
            f"model.{adapted}={model[adapted]}, but model.init is empty: all weights but a few would stay random for "
            f"ever; set --config.model.{adapted}=0, or --config.model.init=WEIGHTS"
        )
    if 0 < num_updates <= model.freeze_encoder_updates:
        return (
            f"model.freeze_encoder_updates={model.freeze_encoder_updates} of train.num_updates={num_updates}, but "
            "model.init is empty: the encoder would stay random for ever; set "
            "--config.model.freeze_encoder_updates=0, or --config.model.init=WEIGHTS"
        )
    return ""


def _random_origin(init: str) -> str:
    """Returns the workdir of the run, among those behind `init`, that froze a random feature encoder; "" if none."""
    seen: set[str] = set()
    while init and init not in seen:
        seen.add(init)
        path = layout.find_above(init, layout.CONFIG_FILE)
        if path is None:
            return ""
        try:
            model = layout.read_config(path).get("model")
        except (MalformedFileError, OSError):
            return ""  # reading the weights reports the error
        if not isinstance(model, dict) or model.get("source", "native") != "native":
            return ""
        if not model.get("freeze_feature_encoder"):
            return ""
        if not model.get("init"):
            return storage.parent(path)
        init = str(model["init"])
    return ""


def check_adaptation(config: ConfigDict, init: str) -> None:
    """Checks that LoRA or bottleneck adapters in the initial weights are those of the config.

    Raises:
        ValueError: They are others, so the weights must be merged first.
    """
    theirs = read_adaptation(init)
    kind = next((name for name in ("lora_rank", "bottleneck_size") if theirs[name]), "")
    decisive = {"lora_rank": ("lora_rank", "lora_alpha", "lora_targets"), "bottleneck_size": ("bottleneck_size",)}
    names = decisive.get(kind, ())
    if all(_unordered(theirs[name]) == _unordered(config.model.get(name)) for name in names):
        return
    found = ", ".join(f"{name}={theirs[name]}" for name in names)
    remedy = "choose other weights"
    if kind == "lora_rank":
        remedy = f"merge them with python -m models.convert --input={init} --output=DIR --merge and start from DIR"
    raise ValueError(f"model.init={init} was trained with {found}; set model.{kind} and its fields alike, or {remedy}")


def _unordered(value: Any) -> Any:
    return sorted(value) if isinstance(value, tuple | list) else value


def check_head(init: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a head taken from model.init has the vocabulary of the run; equal sizes do not prove it.

    Args:
        init: Weights to start from; the vocabulary of their head is the vocab.json there, or above a checkpoint.
        tokenizer: The tokenizer of the run.
        build_tokenizer: Reads a vocabulary.

    Raises:
        ValueError: Names both vocabularies and what to set.
    """
    path = layout.find_above(init, layout.VOCAB_FILE)
    if path is None:
        return  # weights alone: their shape is compared when they are read
    difference = _difference(build_tokenizer(path), tokenizer)
    if difference:
        raise ValueError(
            f"model.init_head=True, but the vocabulary of the head, {path}, {difference}; set data.vocab={path}, or "
            "model.init_head=False for a fresh head"
        )


def check_same_vocabulary(workdir: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a run resumes with the vocabulary that its head was trained on, in case data.vocab has changed.

    Raises:
        ValueError: Names both vocabularies and what to set.
    """
    path = storage.join(workdir, layout.VOCAB_FILE)
    difference = _difference(build_tokenizer(path), tokenizer) if storage.is_file(path) else ""
    if difference:
        raise ValueError(
            f"the vocabulary of this run, {path}, {difference}, which is no longer the one that it began with; set "
            "data.vocab back, or choose another workdir"
        )


def _difference(theirs: Tokenizer, ours: Tokenizer) -> str:
    """Returns how a vocabulary differs from data.vocab; "" if a head's rows mean the same in both."""
    if theirs.num_tokens != ours.num_tokens:
        return f"has {theirs.num_tokens} tokens and that of data.vocab {ours.num_tokens}"
    if theirs.blank_id != ours.blank_id:
        return f"has its blank at {theirs.blank_id} and that of data.vocab at {ours.blank_id}"
    tokens = zip(theirs.token_strings, ours.token_strings, range(theirs.num_tokens), strict=True)
    first = next((found for found in tokens if found[0] != found[1]), None)
    return "" if first is None else f"has {first[0]!r} as token {first[2]} and that of data.vocab {first[1]!r}"


def check_corpus(config: ConfigDict, fields: ConfigDict) -> None:
    """Checks that the corpus of a set exists.

    Args:
        config: The config, whose data.prepare_command may make the corpus.
        fields: The fields of the set.

    Raises:
        ValueError: It does not; says what makes it, or what lies near.
    """
    if not is_spread(fields.input) and not storage.exists(fields.input):
        raise ValueError(f"{fields.input}: {describe_missing_corpus(fields.input, config.data.prepare_command)}")


def check_losses(config: ConfigDict, model: AcousticModel) -> None:
    """Checks that the model can compute what the losses of the config need.

    Raises:
        ValueError: Names the field, its value and what to set.
    """
    train = config.train
    layers = train.get("intermediate_ctc_layers", ())
    if train.get("cr_ctc_scale", 0.0):
        where = f"train.cr_ctc_scale={train.cr_ctc_scale:g}"
        if fault := model.explain_unsupported(num_views=2, layers=()):
            raise ValueError(f"{where}: {fault}; set it to 0")
        if not any(config.model.get(name) for name in _RANDOM_FIELDS):
            raise ValueError(f"{where}: the two views of a row would be the same; set a model.mask_time_prob above 0")
    if layers and (fault := model.explain_unsupported(num_views=1, layers=layers)):
        raise ValueError(f"train.intermediate_ctc_layers={tuple(layers)}: {fault}; name others, or () for none")


def added_silence_secs(data: ConfigDict) -> float:
    """Returns the most silence that augmentation adds to a row, before and after it, in seconds."""
    augment = data.get("augment", {})
    return 2 * augment["silence_secs"][1] if augment.get("silence_prob") else 0.0


def check_row_lengths(config: ConfigDict, max_samples: int) -> None:
    """Checks that no row can be longer than the model trains on.

    Args:
        config: The config of the run, whose group `data` limits the rows.
        max_samples: Number of samples in the longest row that the model trains on; 0 = no limit.

    Raises:
        ValueError: Names the field and a value that fits.
    """
    if not max_samples:
        return
    row_secs = max_samples / 16_000 - added_silence_secs(config.data)
    limits = {"max_duration_secs": row_secs * min(config.data.speed_factors)}
    if config.data.concat_max_utterances > 1:
        limits["concat_max_secs"] = row_secs  # already holds at the slowest speed
    for name, limit in limits.items():
        if not 0 < config.data[name] <= limit:
            raise ValueError(
                f"data.{name}={config.data[name]:g}: this model trains on rows of at most {max_samples} samples; set "
                f"{math.floor(limit * 1000) / 1000:g} or less (longer rows are left out, and counted)"
            )
