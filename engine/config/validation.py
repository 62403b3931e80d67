"""What can be known to be wrong with a run before anything slow begins: fields, inputs, lengths of rows."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError
from common.near_files import describe_near
from common.weight_names import is_weight_name, repository_hint
from engine.config import builders
from engine.protocols import Tokenizer
from engine.training.ema import ema_name
from engine.training.options import LOSS_DIVISORS
from engine.training.schedules import SCHEDULES


@dataclasses.dataclass(frozen=True)
class _Number:
    """The numbers that a field may hold.

    Attributes:
        wanted: Which ones, in words.
        fits: Whether a finite number is among them.
        is_whole: Whether it counts something.
    """

    wanted: str
    fits: Callable[[float], bool]
    is_whole: bool = False

    def fault(self, value: object) -> str:
        """Returns what the value must be and is not, "" where it is."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return f"a {'whole ' * self.is_whole}number, {self.wanted}"
        if self.is_whole and value != int(value):
            return f"a whole number, {self.wanted}"
        return "" if self.fits(value) else self.wanted


_COUNT = _Number("at least 0", lambda value: value >= 0, is_whole=True)
_SIZE = _Number("at least 1", lambda value: value >= 1, is_whole=True)
_AMOUNT = _Number("at least 0", lambda value: value >= 0)
_POSITIVE = _Number("above 0", lambda value: value > 0)
_RATIO = _Number("from 0 to 1", lambda value: 0 <= value <= 1)
_DECAY = _Number("from 0 to less than 1", lambda value: 0 <= value < 1)
_NUMBERS = {
    "seed": _Number(f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32, is_whole=True),
    "model.freeze_encoder_updates": _COUNT,
    "data.max_unreadable_ratio": _RATIO,
    "train.global_batch_size": _SIZE,
    "train.accum_steps": _SIZE,
    "data.train.held_out_ratio": _RATIO,
    "train.num_updates": _SIZE,
    "train.num_epochs": _AMOUNT,
    "train.learning_rate": _POSITIVE,
    "train.head_learning_rate_factor": _POSITIVE,
    "train.warmup_updates": _COUNT,
    "train.hold_updates": _COUNT,
    "train.warmup_ratio": _RATIO,
    "train.hold_ratio": _RATIO,
    "train.beta_1": _DECAY,
    "train.beta_2": _DECAY,
    "train.epsilon": _POSITIVE,
    "train.weight_decay": _AMOUNT,
    "train.clip_norm": _AMOUNT,
    "train.ema_decay": _DECAY,
    "train.max_consecutive_skips": _COUNT,
    "train.log_every_updates": _SIZE,
    "eval.every_updates": _COUNT,
    "eval.every_epochs": _AMOUNT,
    "eval.batch_size": _SIZE,
    "eval.early_stopping_patience": _COUNT,
    "eval.idle_timeout_secs": _AMOUNT,
    "eval.num_logged": _COUNT,
    "eval.report_utterances": _COUNT,
    "eval.report_max_audio_mb": _AMOUNT,
    "checkpoint.every_updates": _SIZE,
    "checkpoint.every_epochs": _AMOUNT,
    "checkpoint.keep": _SIZE,
    "runtime.stop_within_secs": _AMOUNT,
    "runtime.num_virtual_devices": _COUNT,
    "runtime.cluster_start_secs": _POSITIVE,
    "runtime.heartbeat_secs": _POSITIVE,
}
_CHOICES = {
    "train.precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "train.optimizer": ("adam", "adamw"),
    "train.schedule": SCHEDULES,
    "train.loss_divisor": LOSS_DIVISORS,
    "checkpoint.background": (True, False),
    "runtime.loop_in_graph": (True, False),
}
# What is counted in updates or, instead, in epochs.
_EPOCHS_OF = {
    "train.num_updates": "train.num_epochs",
    "eval.every_updates": "eval.every_epochs",
    "checkpoint.every_updates": "checkpoint.every_epochs",
}
# Configs from before there were these fields go on without them.
_LATER_FIELDS = (
    "data.train.held_out_ratio", "train.num_epochs", "eval.every_epochs", "checkpoint.every_epochs",
    "train.warmup_ratio", "train.hold_ratio", "train.loss_divisor", "checkpoint.background", "runtime.stop_within_secs",
    "runtime.loop_in_graph",
)  # fmt: skip


def check_values(config: ConfigDict) -> None:
    """Checks each field of a run by itself, before anything reads it.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    for name in (*_NUMBERS, *_CHOICES):
        *groups, field = name.split(".")
        place: Any = config
        for group in groups:
            place = place.get(group) if isinstance(place, ConfigDict) else None
        if not isinstance(place, ConfigDict) or field not in place:
            if name in _LATER_FIELDS:
                continue
            raise ValueError(f"the config has no field {name}: start it from configs.base.get_config()")
        value = place[field]
        if name in _NUMBERS:
            wanted = _NUMBERS[name].fault(value)
        else:
            wanted = "" if value in _CHOICES[name] else f"one of {', '.join(map(str, _CHOICES[name]))}"
        by_epochs = _EPOCHS_OF.get(name, "")
        epochs = place.get(by_epochs.rpartition(".")[2], 0.0) if by_epochs else 0.0
        if value == 0 and not isinstance(value, bool) and epochs:
            continue
        if wanted:
            raise ValueError(f"{name} must be {wanted}, got {value!r}")
        if epochs:
            raise ValueError(f"{by_epochs}={epochs:g} and {name}={value} are both set; set one of them to 0")


def check_fields(config: ConfigDict, *, num_replicas: int, trains: bool = True) -> None:
    """Checks fields, and fields against each other, before anything is built.

    Args:
        config: As configs/base.py.
        num_replicas: Replicas that a batch is shared out to.
        trains: Whether there will be updates; an evaluation alone has no use for their batch.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    check_values(config)
    if trains:
        _check_training_batch(config, num_replicas)
    if config.train.ema_decay:
        taken = [name for name in config.data.eval if ema_name(name) in config.data.eval]
        if taken:
            raise ValueError(
                f"data.eval.{ema_name(taken[0])}: with train.ema_decay this is the name of {taken[0]}'s figures of "
                "averaged weights; rename the set"
            )
    if config.data.eval and config.eval.best_metric_set not in config.data.eval:
        raise ValueError(
            f"eval.best_metric_set={config.eval.best_metric_set!r} names no evaluation set; data.eval has "
            f"{', '.join(sorted(config.data.eval))}"
        )


def _check_training_batch(config: ConfigDict, num_replicas: int) -> None:
    train = config.train
    if config.data.max_batch_secs:
        if config.data.row_multiple % (num_replicas * train.accum_steps):
            raise ValueError(
                f"data.row_multiple={config.data.row_multiple} must be a multiple of replicas x train.accum_steps = "
                f"{num_replicas} x {train.accum_steps}, as data.max_batch_secs is set"
            )
    elif train.global_batch_size % (num_replicas * train.accum_steps):
        raise ValueError(
            f"train.global_batch_size={train.global_batch_size} must be a multiple of replicas x train.accum_steps = "
            f"{num_replicas} x {train.accum_steps}"
        )


def can_be_longer(config: ConfigDict, *, before: int, num_updates: int, step: int) -> bool:
    """Tells whether a run may be made longer: whether the updates done have the rates of the longer run.

    Args:
        config: As configs/base.py.
        before: Number of updates that the run had so far.
        num_updates: Number that it is to have.
        step: Updates done.
    """
    schedules = []
    for number in (before, num_updates):
        copy = ConfigDict(config.to_dict())
        copy.train.num_updates = number
        schedules.append(builders.build_learning_rate(copy))
    return step <= schedules[0].num_updates_shared_with(schedules[1])


def how_to_go_on(config: ConfigDict, *, workdir: str) -> str:
    """Says what to do with a run that cannot be made longer."""
    return (
        f"its learning rates are those of a run of that length (train.schedule={config.train.schedule}), so go on from "
        f"its weights as another run: --workdir=ANOTHER --config.model.init={workdir} --config.model.init_head=True"
    )


def check_longer(saved: Mapping[str, Any], config: ConfigDict, *, workdir: str, step: int) -> tuple[str, ...]:
    """Returns the fields that may differ from a workdir's config because the run is to be longer.

    Args:
        saved: The config in the workdir.
        config: That of this process.
        workdir: For the message.
        step: Updates done.

    Raises:
        ValueError: The run is to be longer, and its learning rates would be those of no run.
    """
    train = saved.get("train")
    before, now = train.get("num_updates") if isinstance(train, Mapping) else None, config.train.num_updates
    if not isinstance(before, int) or not 0 < before < now:
        return ()
    try:
        is_right = can_be_longer(config, before=before, num_updates=now, step=step)
    except ValueError:  # other fields differ too, and are named
        return ()
    if is_right:
        return ("train.num_updates", "train.num_epochs")
    raise ValueError(
        f"train.num_updates was {before}, is {now}, and {workdir} is at update {step}: "
        f"{how_to_go_on(config, workdir=workdir)}"
    )


def check_tpu(config: ConfigDict) -> None:
    """Checks what a TPU cannot run: it compiles the step for one shape, in float32 or bfloat16.

    Raises:
        ValueError: Names the field and the value that would do.
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


def check_inputs(config: ConfigDict, init: str, *, evaluate: bool) -> None:
    """Says what is missing, and the command that makes it, before anything slow begins.

    Raises:
        ValueError: If a corpus or the weights to start from are not there.
    """
    for fields in (config.data.train, *(config.data.eval.values() if evaluate else ())):
        check_corpus(config, fields)
    if init and not (storage.exists(init) or storage.exists(f"{init}.index")):
        raise ValueError(
            f"{init}: no such weights (model.init){repository_hint(init)}; convert a Hugging Face folder with: "
            "python -m models.convert "
            f"--input=HF_FOLDER --output={init}; or train the whole model from random weights, which takes far more "
            "data, with --config.model.init= --config.model.freeze_feature_encoder=False"
        )


def check_frozen(config: ConfigDict, *, is_fresh: bool = True) -> None:
    """Checks that what is frozen has been trained: random convolutions that stay random make every score meaningless.

    Args:
        config: Of the run.
        is_fresh: Whether the run begins. One that began like this goes on, with a warning.

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
    """Returns what is wrong where frozen variables have never been trained and never will be, "" where nothing is."""
    model = config.model
    if model.get("source", "native") != "native":
        return ""  # a SavedModel comes with its weights
    remedy = (
        "set --config.model.init=WEIGHTS, which python -m models.convert --input=HF_FOLDER --output=WEIGHTS makes; or "
        "train the whole model from random weights, which takes far more data, with --config.model.init= "
        "--config.model.freeze_feature_encoder=False"
    )
    if not model.init and model.freeze_feature_encoder:
        return (
            "model.freeze_feature_encoder=True, but model.init is empty: the feature encoder would stay random for "
            f"ever; {remedy}"
        )
    if not model.init and 0 < config.train.num_updates <= model.freeze_encoder_updates:
        return (
            f"model.freeze_encoder_updates={model.freeze_encoder_updates} of train.num_updates="
            f"{config.train.num_updates}, but model.init is empty: the encoder would stay random for ever; set "
            "--config.model.freeze_encoder_updates=0, or --config.model.init=WEIGHTS"
        )
    if (
        model.init
        and model.freeze_feature_encoder
        and not is_weight_name(model.init)
        and (origin := _random_origin(model.init))
    ):
        return (
            f"model.freeze_feature_encoder=True, but the feature encoder of {model.init} (model.init) is random: the "
            f"run in {origin} began with random weights and had it frozen; {remedy}"
        )
    return ""


def _random_origin(init: str) -> str:
    """Returns the workdir whose run left the feature encoder as random as it began, among those that led to `init`."""
    seen: set[str] = set()
    while init and init not in seen:
        seen.add(init)
        path = layout.find_above(init, layout.CONFIG_FILE)
        if path is None:
            return ""
        try:
            model = layout.read_config(path).get("model")
        except (MalformedFileError, OSError):
            return ""  # whoever reads the weights says so
        if not isinstance(model, dict) or model.get("source", "native") != "native":
            return ""
        if not model.get("freeze_feature_encoder"):
            return ""
        if not model.get("init"):
            return storage.parent(path)
        init = str(model["init"])
    return ""


def check_head(init: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a head that is taken over speaks the run's alphabet; one of the same size could be another.

    Args:
        init: Weights to start from; a vocab.json there, or above a checkpoint, is that of their head.
        tokenizer: Of the run.
        build_tokenizer: Reads a vocabulary.

    Raises:
        ValueError: Names both vocabularies and what to set.
    """
    path = layout.find_above(init, layout.VOCAB_FILE)
    if path is None:
        return  # bare weights: their shape is compared when they are read
    difference = _difference(build_tokenizer(path), tokenizer)
    if difference:
        raise ValueError(
            f"model.init_head=True, but the vocabulary of the head, {path}, {difference}; set data.vocab={path}, or "
            "model.init_head=False for a fresh head"
        )


def check_same_vocabulary(workdir: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a run goes on with the vocabulary that its head was trained on, whatever data.vocab holds by now.

    Raises:
        ValueError: Names both and what to set.
    """
    path = os.path.join(workdir, "vocab.json")
    difference = _difference(build_tokenizer(path), tokenizer) if os.path.isfile(path) else ""
    if difference:
        raise ValueError(
            f"the vocabulary of this run, {path}, {difference}, which is no longer the one that it began with; set "
            f"data.vocab back, or choose another workdir"
        )


def _difference(theirs: Tokenizer, ours: Tokenizer) -> str:
    """Returns how a vocabulary differs from that of data.vocab; "" where rows of a head mean the same in both."""
    if theirs.num_tokens != ours.num_tokens:
        return f"has {theirs.num_tokens} tokens and that of data.vocab {ours.num_tokens}"
    if theirs.blank_id != ours.blank_id:
        return f"has its blank at {theirs.blank_id} and that of data.vocab at {ours.blank_id}"
    tokens = zip(theirs.token_strings, ours.token_strings, range(theirs.num_tokens), strict=True)
    first = next((found for found in tokens if found[0] != found[1]), None)
    return "" if first is None else f"has {first[0]!r} as token {first[2]} and that of data.vocab {first[1]!r}"


def check_corpus(config: ConfigDict, fields: ConfigDict) -> None:
    """Says what makes a set of the config whose corpus is missing, or what lies near a path of the user's own.

    Raises:
        ValueError: If it is.
    """
    if not storage.exists(fields.input):
        command = config.data.prepare_command
        hint = f"make it with: {command}" if _makes(command, fields.input) else "check the path"
        raise ValueError(f"{fields.input}: no such corpus; {hint}{describe_near(fields.input)}")


def _makes(command: str, path: str) -> bool:
    """Returns whether a command makes a path: names it, or names no output at all."""
    if "--output=" not in command:
        return bool(command)
    return re.search(rf"(?<![\w./-]){re.escape(os.path.normpath(path))}(?![\w.-])", command) is not None


def check_row_lengths(config: ConfigDict, max_samples: int) -> None:
    """Checks that no row can be longer than the model trains on.

    Args:
        config: Whose data limits the rows.
        max_samples: Longest row; 0 = any.

    Raises:
        ValueError: Names the field and the value that would do.
    """
    if not max_samples:
        return
    limits = {"max_duration_secs": max_samples / 16_000 * min(config.data.speed_factors)}
    if config.data.concat_max_utterances > 1:
        limits["concat_max_secs"] = max_samples / 16_000  # which is meant at the slowest speed already
    for name, limit in limits.items():
        if not 0 < config.data[name] <= limit:
            raise ValueError(
                f"data.{name}={config.data[name]:g}: this model trains on rows of at most {max_samples} samples; set "
                f"{math.floor(limit * 1000) / 1000:g} or less (longer rows are left out, and counted)"
            )
