"""Decides what XLA compiles in a run, and which back end computes the CTC loss, from the config and the devices."""

from __future__ import annotations

import functools
import math
from typing import Any

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from engine.distributed import strategy as runtime
from engine.protocols import Components, LossFn

# Shapes of batches up to which runtime.jit_compile=auto compiles on a GPU: each takes half a minute or more. A compiled
# update of base takes a third of the time of one that is not (docs/results/0170).
_FEW_SHAPES = 8
# Values of runtime.ctc_backend that XLA cannot compile.
NOT_COMPILED = ("host", "cudnn")


def compiles_steps(config: ConfigDict, strategy: tf.distribute.Strategy) -> bool:
    """Returns whether steps are compiled as a whole on our account; a TPU does so whatever the config says."""
    return not runtime.is_tpu(strategy) and compiles_on(config, "GPU" if runtime.is_gpu(strategy) else "CPU")


def compiles_on(config: ConfigDict, device_type: str) -> bool:
    """Returns whether steps are compiled as a whole on devices of a type, "CPU", "GPU" or "TPU"."""
    choice = _read(config, "jit_compile")
    if device_type == "TPU" or choice == "on":
        return True
    return (
        choice == "auto"
        and device_type == "GPU"
        and config.model.get("source", "native") == "native"
        and config.model.get("fused_ops", "auto") != "on"
        and _read(config, "ctc_backend") not in NOT_COMPILED
        # XLA's deterministic programs are not well tried.
        and not config.get("runtime", ConfigDict()).get("deterministic", False)
        and _count_shapes(config) <= _FEW_SHAPES
    )


def _read(config: ConfigDict, name: str) -> str:
    """Returns a field of `runtime`; runs of older versions lack it."""
    return config.get("runtime", ConfigDict()).get(name, "auto")


def _count_shapes(config: ConfigDict) -> float:
    """Returns how many shapes training batches have; infinite if their number of rows varies."""
    data = config.data
    if data.get("max_batch_secs", 0.0):
        return math.inf
    # A converted folder, which recognizes alone, has no batches.
    return len(data.get("bucket_boundaries_samples", ())) or data.get("num_buckets", math.inf)


def check_compilation(config: ConfigDict) -> None:
    """Checks that fields allow what runtime.jit_compile=on asks for.

    Raises:
        ValueError: Names the field and a value that fits.
    """
    if _read(config, "jit_compile") != "on":
        return
    if (backend := _read(config, "ctc_backend")) in NOT_COMPILED:
        raise ValueError(
            f"runtime.ctc_backend={backend}: XLA cannot compile it, and runtime.jit_compile=on compiles the step as a "
            "whole; set auto, scan, xla or blocks, or runtime.jit_compile=off"
        )
    if config.model.get("fused_ops", "auto") == "on":
        raise ValueError(
            "model.fused_ops=on: runtime.jit_compile=on compiles the step as a whole; set auto or off, or "
            "runtime.jit_compile=off"
        )


def describe_compilation(config: ConfigDict, strategy: tf.distribute.Strategy) -> str:
    """Returns what is compiled as a whole, in one line; "" if nothing is."""
    if not compiles_steps(config, strategy):
        return ""
    what = "each update" if runtime.is_one_device(strategy) else "each replica's forward and backward passes"
    return (
        f"XLA compiles {what} and each evaluation step as a whole (runtime.jit_compile="
        f"{_read(config, 'jit_compile')}): the first batch of each shape takes longer"
    )


def choose_loss(config: ConfigDict, parts: Components, strategy: tf.distribute.Strategy) -> LossFn:
    """Returns the loss with the back end of runtime.ctc_backend."""
    backend = _read(config, "ctc_backend")
    if backend == "cudnn" and not runtime.is_gpu(strategy):
        logging.warning("runtime.ctc_backend=cudnn: this run uses no GPU; the loss is computed by auto instead")
        backend = "auto"
    if backend == "cudnn":
        logging.info("runtime.ctc_backend=cudnn: a batch with a row of more than 256 labels takes blocks instead")
    loss_fn: Any = parts.loss_fn  # takes the keyword, which `LossFn` does not show
    return parts.loss_fn if backend == "auto" else functools.partial(loss_fn, backend=backend)
