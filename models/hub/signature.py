"""How a SavedModel wants to be called: one input or two, a fixed number of samples or any."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Signature:
    """How a SavedModel is called.

    Attributes:
        num_samples: Of a row; 0 = any.
        mask_dtype: Of the attention mask, if the input is the pair (speech, attention_mask); else None.
        num_frames: Of the output, 0 if the file does not say.
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
    """Finds out how a loaded SavedModel wants to be called.

    Args:
        loaded: What `hub.load` returns.
        handle: Its name in messages.

    Raises:
        ValueError: If it cannot be trained as a backbone: one line with the reason.
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
        specs = [spec for spec in tf.nest.flatten([args, kwargs]) if isinstance(spec, tf.TensorSpec)]
        output = function.structured_outputs
        is_pair = len(specs) == 2 and isinstance(args[0], (tuple, list))
        fits = (len(specs) == 1 or is_pair) and all(spec.shape.rank == 2 for spec in specs)
        is_states = isinstance(output, (tf.TensorSpec, tf.Tensor)) and output.shape.rank == 3 and output.shape[-1]
        if training is None or not fits or not is_states:
            continue
        found.setdefault(
            bool(training),
            Signature(
                num_samples=specs[0].shape[1] or 0,
                mask_dtype=specs[1].dtype if is_pair else None,
                num_frames=output.shape[1] or 0,
                output_size=output.shape[2],
            ),
        )
    if set(found) != {True, False} or found[True] != found[False]:
        raise ValueError(
            f"{handle}: no call with training=True and training=False maps speech [B, T], or (speech, attention_mask), "
            "to states [B, F, D]"
        )
    return found[True]
