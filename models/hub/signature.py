"""Reads the calling convention of a SavedModel: one input or two, a fixed number of samples or any."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Signature:
    """Calling convention of a SavedModel.

    Attributes:
        num_samples: Samples of a row; 0 = any.
        mask_dtype: dtype of the attention mask if the input is the pair (speech, attention_mask), else None.
        num_frames: Frames of the output; 0 if the file does not say.
        output_size: Width D of the output.
    """

    num_samples: int
    mask_dtype: tf.DType | None
    num_frames: int
    output_size: int


def is_saved_model(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder holds a SavedModel."""
    return Path(folder, "saved_model.pb").is_file()


def read_signature(loaded: Any, handle: str) -> Signature:
    """Reads the calling convention of a loaded SavedModel.

    Args:
        loaded: Object that `hub.load` returns.
        handle: Name of the SavedModel in messages.

    Raises:
        ValueError: If it cannot be trained as a backbone.
    """
    functions = getattr(getattr(loaded, "__call__", None), "concrete_functions", None)  # noqa: B004
    if not functions or not getattr(loaded, "trainable_variables", None):
        raise ValueError(
            f"{handle}: not a SavedModel that can be trained: it needs a __call__ and trainable_variables; "
            "make one with python -m models.hub_export"
        )
    found: dict[bool, Signature] = {}
    for function in functions:
        args, kwargs = function.structured_input_signature
        training = kwargs.get("training", next((x for x in args if isinstance(x, bool)), None))
        signature = _signature_of(args, kwargs, function.structured_outputs)
        if training is not None and signature is not None:
            found.setdefault(bool(training), signature)
    if set(found) != {True, False} or found[True] != found[False]:
        raise ValueError(
            f"{handle}: no call with training=True and training=False maps speech [B, T], or (speech, attention_mask), "
            "to states [B, F, D]"
        )
    return found[True]


def _signature_of(args: Any, kwargs: Any, output: Any) -> Signature | None:
    """Returns the calling convention of one function, or None if it does not map speech to states."""
    specs = _speech_specs(args, kwargs)
    is_states = isinstance(output, (tf.TensorSpec, tf.Tensor)) and output.shape.rank == 3 and output.shape[-1]
    if not specs or not is_states:
        return None
    return Signature(
        num_samples=specs[0].shape[1] or 0,
        mask_dtype=specs[1].dtype if len(specs) == 2 else None,
        num_frames=output.shape[1] or 0,
        output_size=output.shape[2],
    )


def _speech_specs(args: Any, kwargs: Any) -> list[tf.TensorSpec]:
    """Returns the specs of speech, or of speech and attention mask; [] if the function takes other tensors."""
    specs = [spec for spec in tf.nest.flatten([args, kwargs]) if isinstance(spec, tf.TensorSpec)]
    is_pair = len(specs) == 2 and isinstance(args[0], (tuple, list))
    fits = (len(specs) == 1 or is_pair) and all(spec.shape.rank == 2 for spec in specs)
    return specs if fits else []
