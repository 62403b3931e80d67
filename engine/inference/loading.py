"""Loads a trained or an exported recognizer for the modes that read recordings with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from common import storage
from common.json_files import field, optional_field
from common.workdir_layout import VOCAB_FILE
from engine.checkpointing.restore import find_weights, restore_weights
from engine.config import builders, recorded_run
from engine.config.decode import choose_decode
from engine.inference.beam_search import BeamSearchDecoder
from engine.inference.exported import EXPORT_FILE, ExportedModel, read_export_fields
from engine.inference.transcriber import Transcriber, TranscriberOptions
from engine.inference.window_length import choose_window, default_window_secs
from engine.protocols import AcousticModel, Components, InferenceModel, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options of reading recordings with a recognizer.

    Attributes:
        window_secs: Longest row in seconds; longer recordings are cut into overlapping windows. None = what suits the
            recognizer, see `default_window_secs`.
        jit_compile: Whether XLA compiles the recognizer's step as a whole.
        decode_defaults: Values of the fields of config.decode that neither the run nor `decode_given` has; None =
            greedy, whatever the run has.
        decode_given: Fields of config.decode that override those of the run.
    """

    window_secs: float | None = None
    jit_compile: bool = False
    decode_defaults: Mapping[str, Any] | None = None
    decode_given: Mapping[str, Any] | None = None

    def arguments_for(self, checkpoint: str) -> dict[str, Any]:
        """Returns the arguments window_secs and decode of `load_transcriber`.

        Args:
            checkpoint: A workdir, a checkpoint inside one, or an export, which has no fields of config.decode.
        """
        window_secs = default_window_secs(checkpoint) if self.window_secs is None else self.window_secs
        decode = None
        if self.decode_defaults is not None:
            is_export = bool(read_export_fields(checkpoint))
            recorded = {} if is_export else recorded_run.load_run(checkpoint)[0].get("decode", {})
            decode = choose_decode(self.decode_defaults, recorded, self.decode_given or {})
        return {"window_secs": window_secs, "decode": decode}


GREEDY = ReadingOptions()


def load_trained(
    *, parts: Components, checkpoint: str, weights: str = "", precision: str = "", fused_ops: str = ""
) -> tuple[AcousticModel, Tokenizer]:
    """Builds the model of a run with its best weights, LoRA merged into them, and its tokenizer.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, or a checkpoint inside one.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights.
        precision: A value of config.train.precision; "" = the run's own.
        fused_ops: A value of config.model.fused_ops; "" = the run's own.

    Raises:
        ValueError: The run or its weights cannot be used.
    """
    config, workdir = recorded_run.load_run(checkpoint)
    config.train.precision = precision or config.train.precision
    if fused_ops:
        config.model.fused_ops = fused_ops
    tokenizer = parts.build_tokenizer(storage.join(workdir, VOCAB_FILE))
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    restore_weights(model, checkpoint, weights=weights)
    if config.model.get("lora_rank", 0):
        model.merge_low_rank()
    return model, tokenizer


def load_transcriber(
    *,
    parts: Components,
    checkpoint: str,
    weights: str = "",
    batch_size: int = 8,
    window_secs: float | None = None,
    decode: Mapping[str, Any] | None = None,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool = False,
) -> Transcriber:
    """Builds a transcriber from a run's config, vocabulary and best weights, or from an exported recognizer.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or a folder that --mode=export wrote.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights; "" for an export.
        batch_size: Number of rows in a batch.
        window_secs: Longest row in seconds; a longer recording is cut into windows that overlap. None = what suits the
            recognizer, see `default_window_secs`.
        decode: The fields of config.decode; None = greedy.
        strategy: Strategy whose replicas share each batch; None = one device.
        jit_compile: Whether XLA compiles the step as a whole, for each of four lengths of rows.

    Raises:
        ValueError: The run, its weights or the search cannot be used.
    """
    scope: AbstractContextManager[Any] = contextlib.nullcontext() if strategy is None else strategy.scope()
    is_shared = strategy is not None and strategy.num_replicas_in_sync > 1
    model: InferenceModel
    window = choose_window(checkpoint, window_secs)
    exported = read_export_fields(checkpoint) if checkpoint else None
    if exported is not None:
        _check_export(checkpoint, weights=weights, jit_compile=jit_compile)
        text_rules = read_text_rules(checkpoint)
        # Exports of older versions have no such field: they normalize.
        normalize = optional_field(exported, "normalize_waveform", bool, storage.join(checkpoint, EXPORT_FILE), True)
        tokenizer = parts.build_tokenizer(storage.join(checkpoint, VOCAB_FILE))
        parts = builders.with_blank(parts, tokenizer)
        beam_search = _build_beam_search(parts, tokenizer, decode)
        with scope:
            model = ExportedModel(checkpoint)
    else:
        config, workdir = recorded_run.load_run(checkpoint)
        if jit_compile:
            _check_compilable(checkpoint, source=config.model.get("source", "native"))
        text_rules, normalize = config.data, builders.normalizes(config)
        tokenizer = parts.build_tokenizer(storage.join(workdir, VOCAB_FILE))
        parts = builders.with_blank(parts, tokenizer)
        # Before the model, which takes seconds to load: a wrong search is refused at once.
        beam_search = _build_beam_search(parts, tokenizer, decode)
        with scope:
            # As in training, a step that is compiled as a whole has no compiled parts.
            fused_ops = "off" if jit_compile else ""
            trained, _ = load_trained(parts=parts, checkpoint=checkpoint, weights=weights, fused_ops=fused_ops)
        if not is_shared:  # the copies would lie on the first device alone
            trained.fix_weights()
        model = trained
    return Transcriber(
        model=model,
        span_decoder=parts.span_decoder,
        tokenizer=tokenizer,
        count_samples=parts.count_samples,
        stream_audio=functools.partial(parts.stream_audio, on_rate_mismatch=text_rules["on_rate_mismatch"]),
        normalize_waveform=parts.normalize_waveform if normalize else None,
        find_reference=functools.partial(parts.find_reference, text_normalization=text_rules["text_normalization"]),
        beam_search=beam_search,
        options=TranscriberOptions(
            batch_size=batch_size,
            window_secs=window.secs,
            overlap_secs=window.overlap_secs,
            cut_note=window.note,
            strategy=strategy,
            jit_compile=jit_compile,
        ),
    )


def _check_export(checkpoint: str, *, weights: str, jit_compile: bool) -> None:
    """Refuses what an export cannot do."""
    if weights:
        raise ValueError(
            f"--weights={weights}: {checkpoint} is an export, which has only one kind of weights; leave it out"
        )
    if jit_compile:
        raise ValueError(
            f"--jit_compile: {checkpoint} is an export, which runs as it was exported; give the run that it was made "
            "of, or leave the flag out"
        )


def _check_compilable(checkpoint: str, *, source: str) -> None:
    """Refuses to compile a model whose graph is not ours."""
    if source != "native":
        raise ValueError(
            f"--jit_compile: the model of {checkpoint} is a SavedModel (model.source=hub), which runs as it was saved; "
            "leave the flag out"
        )


def read_text_rules(checkpoint: str) -> dict[str, str]:
    """Returns how a recognizer reads audio and texts: the fields on_rate_mismatch and text_normalization.

    Args:
        checkpoint: A workdir, a checkpoint inside one, or an export.

    Raises:
        ValueError: There is no run, or the export lacks a field.
    """
    names = ("on_rate_mismatch", "text_normalization")
    exported = read_export_fields(checkpoint) if checkpoint else None
    if exported is None:
        data = recorded_run.load_run(checkpoint)[0].data
        return {name: data[name] for name in names}
    return {name: field(exported, name, str, storage.join(checkpoint, EXPORT_FILE)) for name in names}


def identify_weights(checkpoint: str, weights: str = "") -> str:
    """Returns a name of a recognizer's weights that changes when a training replaces the best ones; "" for none."""
    if not checkpoint:
        return ""
    if read_export_fields(checkpoint) is not None:
        return storage.absolute(checkpoint)
    return f"{storage.absolute(find_weights(checkpoint, weights=weights))} {weights}".strip()


def _build_beam_search(
    parts: Components, tokenizer: Tokenizer, decode: Mapping[str, Any] | None
) -> BeamSearchDecoder | None:
    search = parts.build_search(token_strings=tokenizer.token_strings, **decode) if decode is not None else None
    if search is None:
        return None
    assert decode is not None
    return BeamSearchDecoder(
        search=search,
        aligner=parts.aligner,
        tokenizer=tokenizer,
        num_alternatives=decode["num_hypotheses"] if decode["num_hypotheses"] > 1 else 0,
    )
