"""Builds the model of a config: the native network or a SavedModel from TF-Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tf_keras

from models.wav2vec2 import model
from models.wav2vec2.config import PRECISIONS

SOURCES = ("native", "hub")


def build_model(
    *,
    source: str,
    preset: str,
    hub_handle: str,
    vocab_size: int,
    architecture: Mapping[str, Any] | None = None,
    precision: str = "float32",
    freeze_feature_encoder: bool = False,
    final_dropout: float = 0.0,
    **overrides: Any,
) -> tf_keras.Model:
    """Builds a model; call inside `strategy.scope()` to distribute it.

    Args:
        source: "native" or "hub".
        preset: Architecture of a native model; ignored for a SavedModel.
        hub_handle: URL or folder of a SavedModel; ignored for a native model.
        vocab_size: Width of the CTC head.
        architecture: Fields of `Wav2Vec2Config` that replace `preset` where it is not a name.
        precision: Keras policy, one of `PRECISIONS`; with a SavedModel it applies to the head alone.
        freeze_feature_encoder: Whether the convolutions stay untrained.
        final_dropout: Dropout rate before the head.
        **overrides: Fields of `Wav2Vec2Config` of a native model; a SavedModel keeps those it was saved with.

    Raises:
        ValueError: If a name is unknown, or there is no such SavedModel.
    """
    if source not in SOURCES:
        raise ValueError(f"model.source must be one of {', '.join(SOURCES)}, got {source!r}")
    if source == "native":
        return model.build_model(
            preset=preset,
            vocab_size=vocab_size,
            architecture=architecture,
            precision=precision,
            freeze_feature_encoder=freeze_feature_encoder,
            final_dropout=final_dropout,
            **overrides,
        )
    if precision not in PRECISIONS:
        raise ValueError(f"train.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    from models.hub.model import HubForCTC  # tensorflow_hub takes a second to import

    return HubForCTC(
        handle=hub_handle,
        vocab_size=vocab_size,
        precision=precision,
        freeze_feature_encoder=freeze_feature_encoder,
        final_dropout=final_dropout,
    )
