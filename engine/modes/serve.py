"""Runs `--mode=serve`: answers HTTP requests with transcripts until a signal arrives."""

from __future__ import annotations

import asyncio
import logging as python_logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf
from absl import logging

from engine.common.out_of_memory import explained_out_of_memory
from engine.common.signals import StopOnSignal
from engine.config import builders, field_rules, memory
from engine.inference.export.saved_model import build_export
from engine.inference.exported import ExportedModel, read_export_fields
from engine.inference.loading import GREEDY, ReadingOptions, load_transcriber
from engine.inference.serving.answers import Answer, Request
from engine.inference.serving.http_server import Limits, Service
from engine.inference.serving.page import render_page
from engine.inference.serving.recognizer import Recognizer
from engine.inference.serving.tf_serving_json import SIGNATURE
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.window_length import LONGEST_SECS
from engine.protocols import AcousticModel, Components

_POLL_SECS = 0.1
# Part of the time after a signal that is reserved for the process to exit.
_MARGIN_SECS = 5.0
_MB = 1_000_000
_DTYPES = {tf.float32: "DT_FLOAT", tf.int32: "DT_INT32", tf.string: "DT_STRING"}


def run(
    *,
    parts: Components,
    checkpoint: str,
    options: Mapping[str, Any],
    stop: StopOnSignal,
    weights: str = "",
    reading: ReadingOptions = GREEDY,
) -> int:
    """Serves until a signal arrives, answers the accepted requests, and returns the exit status: 143 after SIGTERM.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or a folder that --mode=export wrote.
        options: The fields of configs.base.get_serve.
        stop: Handler of the signals that end the server.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights.
        reading: Length of the windows, and how to decode.

    Raises:
        ValueError: An option or the checkpoint cannot be used, or the port is taken.
    """
    limits = build_limits(options)
    transcriber = load_transcriber(
        parts=parts,
        checkpoint=checkpoint,
        weights=weights,
        batch_size=limits.batch_size,
        **reading.arguments_for(checkpoint),
    )
    signature = find_signature(transcriber, parts)
    predict = _predictor(signature)
    recognizer = Recognizer(
        transcribe_files=lambda paths: transcriber.transcribe_files(paths, quiet=True),
        predict=predict,
        count_samples=parts.count_samples,
        max_audio_secs=options["max_audio_secs"],
        max_row_secs=_longest_row_secs(transcriber, reading),
        max_rows=limits.batch_size,
        served_model=limits.name,
    )
    page = render_page(parts.page_environment, limits=limits, max_audio_secs=options["max_audio_secs"])
    # The first run of a graph takes seconds: run it before the first client waits.
    silence = np.zeros(SAMPLE_RATE, np.float32)
    transcriber.log_probs([silence])
    predict(silence[np.newaxis], np.array([len(silence)], np.int32))
    metadata = signature_metadata(signature, name=limits.name, fields=read_export_fields(checkpoint))
    for name in ("tornado.general", "tornado.access"):
        python_logging.getLogger(name).setLevel(python_logging.ERROR)
    stop.defer(plan="answering the accepted requests, then exiting", at_stake="requests are left without an answer")
    timeout_secs = max(stop.within_secs - _MARGIN_SECS, 1.0) if stop.within_secs else 1e9
    is_done = asyncio.run(
        _serve(recognizer, metadata, limits, page, options, until=lambda: stop.requested, timeout_secs=timeout_secs)
    )
    if not is_done:
        logging.error("some requests were not answered within %.0f s", timeout_secs)
    return stop.exit_status


def _longest_row_secs(transcriber: Transcriber, reading: ReadingOptions) -> float:
    """Returns the longest row of a prediction, in seconds: clients cut their recordings themselves.

    Windows that are short because of the rows of the training do not limit it, only --window_secs and the model do.
    """
    secs = LONGEST_SECS if reading.window_secs is None else reading.window_secs
    limit = transcriber.model.max_training_samples / SAMPLE_RATE
    return min(secs, limit) if limit else secs


async def _serve(
    recognizer: Recognizer,
    metadata: dict[str, Any],
    limits: Limits,
    page: bytes,
    options: Mapping[str, Any],
    *,
    until: Callable[[], bool],
    timeout_secs: float,
) -> bool:
    """Listens until `until` returns True; returns whether every accepted request was answered."""

    def answer(requests: Sequence[Request]) -> list[Answer]:
        with explained_out_of_memory(lambda evaluates: memory.advise("serve", evaluates=evaluates, foreseen="")):
            return recognizer.answer(requests)

    service = Service(answer=answer, metadata=metadata, limits=limits, page=page)
    try:
        port = service.listen(host=options["host"], port=options["port"])
        print(f"serving {limits.name} on http://{options['host']}:{port}", flush=True)
        while not until():
            await asyncio.sleep(_POLL_SECS)
    finally:
        is_done = await service.stop(timeout_secs=timeout_secs)
    return is_done


def build_limits(options: Mapping[str, Any]) -> Limits:
    """Builds the server's limits from the fields of configs.base.get_serve.

    Raises:
        ValueError: Names a field with a value that is not allowed.
    """
    field_rules.check_values(options, prefix="serve.")
    return Limits(
        name=options["name"],
        batch_size=options["batch_size"],
        max_pending=options["max_pending"],
        max_connections=options["max_connections"],
        max_body_bytes=round(options["max_body_mb"] * _MB),
        max_json_bytes=round(options["max_json_mb"] * _MB),
        body_timeout_secs=options["body_timeout_secs"],
        answer_timeout_secs=options["answer_timeout_secs"],
        idle_timeout_secs=options["idle_timeout_secs"],
        cors_origins=tuple(origin for origin in options["cors_origins"].lower().split(",") if origin),
    )


def find_signature(transcriber: Transcriber, parts: Components) -> Any:
    """Returns the concrete function that TensorFlow Serving would run, from the export or from one built here."""
    if isinstance(transcriber.model, ExportedModel):
        return transcriber.model.signature
    receptive_field, hop_samples = transcriber.geometry
    parts = builders.with_blank(parts, transcriber.tokenizer)
    exported = build_export(
        model=cast(AcousticModel, transcriber.model),
        tokenizer=transcriber.tokenizer,
        decoder=parts.span_graph_decoder,
        receptive_field=receptive_field,
        hop_samples=hop_samples,
        normalize=transcriber.normalizes,
    )
    return exported.serve.get_concrete_function()


def _predictor(signature: Any) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    def predict(waveform: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        outputs = signature(waveform=tf.constant(waveform), lengths=tf.constant(lengths))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return predict


def signature_metadata(signature: Any, *, name: str, fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the answer of TensorFlow Serving at /metadata, with the export's fields under "earshot"."""
    inputs = {spec.name: spec for spec in _specs(signature.structured_input_signature)}
    described = {
        "inputs": {key: _describe(key, spec) for key, spec in inputs.items()},
        "outputs": {key: _describe(key, spec) for key, spec in signature.structured_outputs.items()},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: described}}},
        "earshot": dict(fields or {}),
    }


def _specs(nested: Any) -> list[tf.TensorSpec]:
    return [spec for spec in tf.nest.flatten(nested) if isinstance(spec, tf.TensorSpec)]


def _describe(name: str, spec: tf.TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape]
    return {
        "dtype": _DTYPES[spec.dtype],
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": name,
    }
