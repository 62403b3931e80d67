"""Defines the values that each field of a config may hold, and checks them without TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.nearest import name_nearest
from engine.evaluation.best_metric import AUTO, METRICS
from engine.training.options import LOSS_DIVISORS


@dataclasses.dataclass(frozen=True)
class Rule:
    """Says which values a field may hold.

    Attributes:
        holds: Tells whether a value is allowed.
        wanted: The allowed values, in words.
        number: "number" or "whole number" for a numeric field; "" for any other.
        is_finite: Whether a number must be finite.
    """

    holds: Callable[[Any], bool]
    wanted: str
    number: str = ""
    is_finite: bool = True

    def find_fault(self, value: object) -> str:
        """Returns what the field must hold instead of `value`; "" for an allowed value."""
        if self.number and not self._is_number(value):
            return self.wanted if self.number in self.wanted else f"a {self.number}, {self.wanted}"
        try:
            return "" if self.holds(value) else self.wanted
        except TypeError:  # a config file can put any type into a tuple or a string
            return self.wanted

    def _is_number(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if self.is_finite and not math.isfinite(value):
            return False
        return self.number == "number" or value == int(value)


def _one_of(*choices: Any) -> Rule:
    return Rule(lambda value: value in choices, f"one of {', '.join(map(str, choices))}")


def _at_least_0(zero: str = "", *, number: str = "number") -> Rule:
    return Rule(lambda value: value >= 0, "0 or more" + (f"; 0 = {zero}" if zero else ""), number)


def _up_to(high: int, *, number: str = "whole number") -> Rule:
    return Rule(lambda value: 0 <= value <= high, f"0 to {high}", number)


def _are_words(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(word, str) and word for word in value)


_COUNT = _at_least_0(number="whole number")
_SIZE = Rule(lambda value: value >= 1, "1 or more", "whole number")
_AMOUNT = _at_least_0()
_POSITIVE = Rule(lambda value: value > 0, "a number above 0", "number")
_RATIO = _up_to(1, number="number")
_BELOW_1 = Rule(lambda value: 0 <= value < 1, "0 to less than 1", "number")
_FINITE = Rule(lambda value: True, "a finite number", "number")
# `data.corpus.held_out` refuses other ratios, after the corpus is read.
_HELD_OUT = Rule(lambda value: 0 <= value <= 0.5, "0 to 0.5; 0 = none", "number")
_SERVE_LIMIT = Rule(lambda value: 0 < value <= 1e9, "a number above 0 and at most 1e9", "number")

# The scheme, host and port of a page, without a path: the form in which browsers send an origin.
_ORIGIN = re.compile(r"https?://[^/?#@,*\s]+")

_LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")
_STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")

# Fields counted in updates -> the fields that count them in epochs instead.
EPOCHS_OF = {
    "train.num_updates": "train.num_epochs",
    "eval.every_updates": "eval.every_epochs",
    "checkpoint.every_updates": "checkpoint.every_epochs",
}

_ADAPTING = ("model.lora_rank", "model.bottleneck_size")
# Field that acts inside the network -> what a SavedModel lacks for it, and what to do.
_NEED_OUR_NETWORK = {
    "runtime.deterministic": "draws random numbers of its own; set False",
    "model.train_adapters_only": "has no attention adapters; set False",
    **dict.fromkeys(_ADAPTING, "has no layers to adapt; set 0, or model.source=native"),
}

# The fields of the training loop, which every run must have. `engine.config.validation` checks train.schedule, whose
# choices only TensorFlow code knows.
TRAINING_RULES: dict[str, Rule] = {
    "seed": _up_to(2**32 - 1),
    "model.freeze_encoder_updates": _COUNT,
    "data.max_unreadable_ratio": _RATIO,
    "data.train.held_out_ratio": _HELD_OUT,
    "data.train.weight": _POSITIVE,
    "data.sampling_alpha": _RATIO,
    "train.global_batch_size": _SIZE,
    "train.microbatch_rows": _SIZE,
    "train.microbatch_secs": _at_least_0("train.microbatch_rows rows instead"),
    "train.num_updates": _SIZE,
    "train.num_epochs": _AMOUNT,
    "train.precision": _one_of("float32", "mixed_bfloat16", "mixed_float16"),
    "train.optimizer": _one_of("adam", "adamw"),
    "train.loss_divisor": _one_of(*LOSS_DIVISORS),
    "train.cr_ctc_scale": _AMOUNT,
    "train.cr_ctc_warmup_updates": _COUNT,
    "train.cr_ctc_mask_factor": _POSITIVE,
    "train.intermediate_ctc_layers": Rule(
        lambda value: (
            all(type(layer) is int for layer in value) and all(a < b for a, b in zip((0, *value), value, strict=False))
        ),
        "rising numbers of layers, from 1",
    ),
    "train.intermediate_ctc_weight": _BELOW_1,
    "train.learning_rate": _POSITIVE,
    "train.head_learning_rate_factor": _POSITIVE,
    "train.warmup_updates": _COUNT,
    "train.hold_updates": _COUNT,
    "train.warmup_ratio": _RATIO,
    "train.hold_ratio": _RATIO,
    "train.beta_1": _BELOW_1,
    "train.beta_2": _BELOW_1,
    "train.epsilon": _POSITIVE,
    "train.weight_decay": _AMOUNT,
    "train.clip_norm": _AMOUNT,
    "train.ema_decay": _BELOW_1,
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
    "checkpoint.background": _one_of(True, False),
    "runtime.stop_within_secs": _AMOUNT,
    "runtime.num_virtual_devices": _COUNT,
    "runtime.cluster_start_secs": _POSITIVE,
    "runtime.heartbeat_secs": _POSITIVE,
    "runtime.loop_in_graph": _one_of(True, False),
    "runtime.deterministic": _one_of(True, False),
}
_RULES: dict[str, Rule] = {
    **TRAINING_RULES,
    "runtime.ctc_backend": _one_of("auto", "scan", "host", "xla", "blocks", "cudnn"),
    "runtime.jit_compile": _one_of("auto", "on", "off"),
    "eval.best_metric": _one_of(*METRICS, AUTO),
    "eval.normalizers": Rule(_are_words, "a tuple of NAME=STYLE"),
    "eval.slices": Rule(_are_words, "a tuple of names of fields, such as ('accent', 'gender'); ('*',) = every field"),
    "model.source": _one_of("native", "hub"),
    "model.fused_ops": _one_of("auto", "on", "off"),
    "model.lora_rank": _COUNT,
    "model.lora_alpha": _POSITIVE,
    "model.lora_dropout": _BELOW_1,
    "model.lora_targets": Rule(
        lambda value: bool(value) and set(value) <= set(_LORA_TARGETS), f"one or more of {', '.join(_LORA_TARGETS)}"
    ),
    "model.bottleneck_size": _COUNT,
    "model.hidden_dropout": _BELOW_1,
    "model.attention_dropout": _BELOW_1,
    "model.activation_dropout": _BELOW_1,
    "model.feature_projection_dropout": _BELOW_1,
    "model.convolution_dropout": _BELOW_1,
    "model.final_dropout": _BELOW_1,
    "model.layer_drop": _BELOW_1,
    "model.mask_time_prob": _RATIO,
    "model.mask_time_length": _SIZE,
    "model.mask_time_min_spans": _COUNT,
    "model.mask_feature_prob": _RATIO,
    "model.mask_feature_length": _SIZE,
    "data.text_normalization": Rule(lambda value: isinstance(value, str), "a style of text, such as unicode"),
    "data.on_rate_mismatch": _one_of("resample", "refuse"),
    "data.num_buckets": _SIZE,
    "data.bucket_boundaries_samples": Rule(
        lambda value: all(low < high for low, high in zip((0, *value), value, strict=False)),
        "rising numbers of samples above 0",
    ),
    "data.min_duration_secs": _AMOUNT,
    "data.max_duration_secs": _at_least_0("no limit"),
    "data.concat_max_utterances": _SIZE,
    "data.concat_max_secs": _at_least_0("no limit"),
    "data.concat_gap_secs": _AMOUNT,
    "data.speed_factors": Rule(
        lambda value: bool(value) and all(0 < speed < math.inf for speed in value), "one or more numbers above 0"
    ),
    "data.max_batch_secs": _at_least_0("train.global_batch_size rows instead"),
    "data.row_multiple": _SIZE,
    "data.doctor_max_hours": _at_least_0("no limit"),
    "data.num_parallel_calls": _at_least_0("as many as the processor has cores", number="whole number"),
    "data.prefetch_batches": _at_least_0("those of two updates, at least four", number="whole number"),
    "data.more_train.*.held_out_ratio": _HELD_OUT,
    "data.more_train.*.weight": _POSITIVE,
    "data.eval.*.held_out_ratio": _HELD_OUT,
    "data.eval.*.concat_max_utterances": _SIZE,
    "data.eval.*.concat_gap_secs": _AMOUNT,
    "decode.beam_size": _SIZE,
    "decode.beam_tokens": _at_least_0("all", number="whole number"),
    "decode.beam_threshold": dataclasses.replace(_POSITIVE, is_finite=False),
    "decode.num_hypotheses": _SIZE,
    "decode.lm_weight": Rule(lambda value: value >= 0, "a number of 0 or more", "number"),
    "decode.word_score": _FINITE,
    "decode.hot_word_score": _FINITE,
    "tune_lm.lm_weights": Rule(
        lambda value: bool(value) and all(0 <= weight < math.inf for weight in value),
        "one or more numbers of 0 or more",
    ),
    "tune_lm.word_scores": Rule(
        lambda value: bool(value) and all(map(math.isfinite, value)), "one or more finite numbers"
    ),
    "tune_lm.num_refinements": _COUNT,
    "tune_lm.max_utterances": _at_least_0("all", number="whole number"),
    "pseudo_label.min_confidence": _RATIO,
    **{
        f"pseudo_label.{name}": _at_least_0("no bound")
        for name in (
            "min_chars_per_sec", "max_chars_per_sec", "min_words_per_sec", "max_words_per_sec", "min_duration_secs",
            "max_duration_secs",
        )
    },
    "pseudo_label.second_speed": Rule(lambda value: 0.5 <= value <= 2, "0.5 to 2; 1 = no second view", "number"),
    "pseudo_label.max_disagreement": _AMOUNT,
    "pseudo_label.batch_size": _SIZE,
    **{f"segment.{name}": _AMOUNT for name in ("min_secs", "pause_secs", "margin_secs", "unknown_loss", "skip_loss")},
    "segment.max_secs": _POSITIVE,
    **{f"segment.{name}": _RATIO for name in ("min_confidence", "min_word_confidence")},
    "segment.formats": Rule(
        lambda value: set(value) <= {"srt", "vtt", "textgrid", "eaf"}, "any of srt, vtt, textgrid, eaf"
    ),
    "verify_resume.num_updates": _at_least_0("those of the config", number="whole number"),
    "verify_resume.num_interruptions": _SIZE,
    "verify_resume.signals": Rule(
        lambda value: bool(value) and set(value) <= set(_STOP_SIGNALS), f"one or more of {', '.join(_STOP_SIGNALS)}"
    ),
    "serve.host": Rule(bool, "an address, such as 127.0.0.1"),
    "serve.port": _up_to(65_535),
    "serve.name": Rule(
        lambda value: bool(value) and not set("/: ") & set(value), "a part of a URL: no slash, colon or space"
    ),
    "serve.cors_origins": Rule(
        lambda value: value in ("", "*") or all(map(_ORIGIN.fullmatch, value.split(","))),
        "*, or origins with commas between them, such as https://a.example,http://localhost:3000",
    ),
    **{
        f"serve.{name}": _SERVE_LIMIT
        for name in (
            "batch_size", "max_pending", "max_connections", "max_body_mb", "max_json_mb", "max_audio_secs",
            "body_timeout_secs", "answer_timeout_secs", "idle_timeout_secs",
        )
    },
}  # fmt: skip


_BOUNDED = ("duration_secs", "chars_per_sec", "words_per_sec")  # fields of config.pseudo_label with min_ and max_


def check_values(
    fields: Mapping[str, Any], *, choices: Mapping[str, Sequence[str]] | None = None, prefix: str = ""
) -> None:
    """Checks that each field of a config holds an allowed value; fields that are absent are not missed.

    Args:
        fields: The nested fields.
        choices: The allowed values of fields that data and models define, by dotted name.
        prefix: The group of all `fields`, such as "serve."; "" for a whole config.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    values = {f"{prefix}{name}": value for name, value in flatten(fields)}
    for name, value in values.items():
        pattern = re.sub(r"^(data\.(?:eval|more_train))\.[^.]+\.", r"\1.*.", name)
        allowed = (choices or {}).get(pattern)
        if allowed is not None and value not in allowed:
            raise ValueError(f"{name}={value!r}: no such value{name_nearest(str(value), allowed)}")
        if pattern in _RULES and not _is_in_epochs(name, values) and (wanted := _RULES[pattern].find_fault(value)):
            raise ValueError(f"{name}={value!r}: wanted {wanted}")
    _check_together(values)


def _check_together(values: Mapping[str, Any]) -> None:
    """Checks fields against each other."""
    for name, by_epochs in EPOCHS_OF.items():
        if (number := values.get(name)) and (epochs := values.get(by_epochs)):
            raise ValueError(f"{by_epochs}={epochs:g} and {name}={number} are both set; set one of them to 0")
    if values.get("model.source") == "hub":
        _check_saved_model(values)
    adapted = [name for name in _ADAPTING if values.get(name)]
    if len(adapted) > 1:
        raise ValueError(f"{' and '.join(f'{name}={values[name]}' for name in adapted)}: set one of them to 0")
    _check_bounds(values)


def _check_bounds(values: Mapping[str, Any]) -> None:
    """Checks that no lower bound is above its upper one."""
    for name in ("data.*_duration_secs", "segment.*_secs", *(f"pseudo_label.*_{kind}" for kind in _BOUNDED)):
        low, high = (values.get(name.replace("*", end), 0) for end in ("min", "max"))
        if 0 < high < low:
            raise ValueError(
                f"{name.replace('*', 'max')}={high:g} is less than {name.replace('*', 'min')}={low:g}: no utterance is "
                "between them"
            )


def _check_saved_model(values: Mapping[str, Any]) -> None:
    """Checks the fields that a SavedModel of model.source=hub cannot follow."""
    for name, lack in _NEED_OUR_NETWORK.items():
        if values.get(name):
            raise ValueError(f"{name}={values[name]}: the SavedModel of model.source=hub {lack}")


def _is_in_epochs(name: str, values: Mapping[str, Any]) -> bool:
    """Tells whether a field is 0 because another one counts the same in epochs."""
    value = values[name]
    return value == 0 and not isinstance(value, bool) and bool(values.get(EPOCHS_OF.get(name, "")))


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the value of every field in nested groups."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
