"""Foresees what a config's model needs in memory, and says what to lower where it was too much."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from common.gpu_capability import gpus_run_triton
from engine.config.compilation import compiles_on
from engine.config.recorded_run import ADAPTATION_FIELDS, read_run_field
from engine.config.validation import added_silence_secs
from engine.distributed import gpus

MeasureFn = Callable[..., Any]
"""Returns frames, memory and operations of a model that is not built, see `models.memory_estimate.measure_model`."""

_SAMPLE_RATE = 16_000
_NUM_TOKENS = 32  # of the estimate; a head is small beside everything else
_TRAINING_MODES = ("train", "train_and_eval")
_EVALUATING_MODES = ("eval", "continuous_eval", "tune_lm")
# What a mode that reads recordings can lower.
_LOWER = {
    "transcribe": "lower --window_secs",
    "pseudo_label": "lower --config.pseudo_label.batch_size or --window_secs",
    "serve": "lower --serve.batch_size or --window_secs",
    "export": "give a few short recordings to --inputs",
    "align": "cut the longest recordings",
    "segment": "lower --window_secs",
}


def measure(config: Any, *, num_tokens: int, measure_model: MeasureFn) -> Any:
    """Returns frames, memory and operations of the model of a config, whose architecture is resolved.

    Args:
        config: The config, see configs/base.py.
        num_tokens: Width of the CTC head.
        measure_model: Measures a model without building it.
    """
    # Runs of older versions lack newer fields.
    model, train = config.model, config.train
    return measure_model(
        source=model.get("source", "native"),
        preset=model.preset,
        architecture=dict(model.get("architecture", {})),
        hub_handle=model.get("hub_handle", ""),
        vocab_size=num_tokens,
        precision=train.precision,
        freeze_feature_encoder=model.freeze_feature_encoder,
        keep_average=train.get("ema_decay", 0.0) > 0,
        num_views=2 if train.get("cr_ctc_scale", 0.0) else 1,
        keep_copy=config.checkpoint.get("background", False),
        is_compiled_whole=compiles_on(config, _device_type()),
        has_attention_kernels=_has_attention_kernels(config),
        fused_ops=model.get("fused_ops", "off"),
        gradient_checkpointing=model.get("gradient_checkpointing", False),
        train_adapters_only=model.get("train_adapters_only", False),
        **{name: model[name] for name in ADAPTATION_FIELDS if name in model},
    )


def _device_type() -> str:
    """Returns the kind of device that training will use."""
    return next((kind for kind in ("TPU", "GPU") if tf.config.list_physical_devices(kind)), "CPU")


def _has_attention_kernels(config: Any) -> bool:
    """Returns whether one device will train, a recent GPU, whose updates are called one by one."""
    runtime = config.get("runtime", {})
    is_one_device = len(tf.config.list_physical_devices("GPU")) == 1 and runtime.get("num_virtual_devices", 0) <= 1
    is_one_host = "TF_CONFIG" not in os.environ
    return is_one_device and is_one_host and not runtime.get("loop_in_graph", False) and gpus_run_triton()


def available_memory() -> int | None:
    """Returns the bytes of memory of a GPU, or of the machine without one; None if they are unknown."""
    if tf.config.list_physical_devices("GPU"):
        return gpus.memory_bytes()
    if tf.config.list_physical_devices("TPU"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def longest_row_samples(config: Any) -> int:
    """Returns the samples of the longest training row that the fields of a config allow; 0 = no limit."""
    data = config.data
    secs = data.max_duration_secs / min(data.get("speed_factors", (1.0,)))
    if data.get("concat_max_utterances", 1) > 1:
        secs = data.concat_max_secs  # already holds at the slowest speed
    return round((secs + added_silence_secs(data)) * _SAMPLE_RATE) if secs else 0


def foresee(config: Any, *, run: str, training: bool, measure_model: MeasureFn) -> str:
    """Returns the largest batch that the doctor's estimate foresees, in words; "" if nothing is foreseen.

    Args:
        config: The config, whose fields limit the length of a row.
        run: The workdir, or a checkpoint in one, which has recorded the architecture.
        training: Whether the model trains.
        measure_model: Measures a model without building it.
    """
    available, samples = available_memory(), longest_row_samples(config)
    if available is None or not samples:
        return ""
    try:
        config = copy.deepcopy(config).unlock()
        config.model.architecture = read_run_field(run, "model", "architecture", dict)
        rows = measure(config, num_tokens=_NUM_TOKENS, measure_model=measure_model).largest_batch(
            samples, available, training
        )
    except (ValueError, OSError) as error:  # the run has recorded nothing, and another error is in the way
        logging.debug("no batch is foreseen: %s", error)
        return ""
    if rows is None:
        return ""
    what = f"rows of {samples / _SAMPLE_RATE:g} s in {available / 2**30:.1f} GiB"
    return f"the doctor foresees at most {rows} {what}" if rows else f"the doctor foresees no {what}"


def is_training(mode: str, *, evaluates: bool) -> bool:
    """Returns whether a mode was training when memory was used up."""
    return mode in _TRAINING_MODES and not evaluates


def advise(mode: str, *, evaluates: bool, foreseen: str, config: Any = None) -> str:
    """Returns what to do about memory that is used up.

    Args:
        mode: The value of --mode.
        evaluates: Whether an evaluation used it up.
        foreseen: What `foresee` returns; "" for a mode without a config.
        config: The config, whose fields say what limits a microbatch; None for a mode without one.
    """
    foreseen = f" ({foreseen})" if foreseen else ""
    others = "end other programs that use this memory"
    if mode in _EVALUATING_MODES:
        return f"lower --config.eval.batch_size{foreseen}, or {others}"
    if mode not in _TRAINING_MODES:
        return f"{_LOWER.get(mode, 'use a smaller model')}, or {others}"
    is_by_secs = config is not None and config.train.get("microbatch_secs", 0.0) > 0
    microbatch = "microbatch_secs" if is_by_secs else "microbatch_rows"
    lower = (
        f"lower --config.eval.batch_size{foreseen}"
        if evaluates
        else f"lower --config.train.{microbatch}{foreseen}, set --config.model.gradient_checkpointing=True, or in a "
        "new run lower data.max_duration_secs"
    )
    return (
        f"{lower}, or {others}; checkpoints are intact, and the same command with the lower value continues from the "
        "newest one"
    )
