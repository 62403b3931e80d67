"""Exports a trained model as a SavedModel that computes text and that plain TensorFlow loads."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from common.workdir_layout import VOCAB_FILE
from engine.common import files
from engine.inference.exported import EXPORT_FILE
from engine.inference.words import SMALLEST_PROB
from engine.protocols import AcousticModel, SpanGraphDecoder, Tokenizer

SAMPLE_RATE = 16_000
# Largest difference of log-probabilities to the trained model, which runs the same arithmetic in another compilation.
_TOLERANCE = {"float32": 2e-3, "mixed_bfloat16": 0.5, "mixed_float16": 0.1}


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """The result of comparing an exported model with the trained one.

    Attributes:
        num_recordings: Number of recordings that both transcribe alike.
        largest_difference: Largest difference of log-probabilities.
    """

    num_recordings: int
    largest_difference: float


class _Exported(tf.Module):
    """The saved object; its functions are attributes, so that the model stays in their closure."""


def build_export(
    *,
    model: AcousticModel,
    tokenizer: Tokenizer,
    decoder: SpanGraphDecoder,
    receptive_field: int,
    hop_samples: int,
    normalize: bool = True,
) -> tf.Module:
    """Wraps a model into the object to save.

    Its signature `serving_default` takes waveform [B, T] float32 at 16 kHz in [-1, 1] and lengths [B] int32, the
    number of valid samples of each row, and returns

        text [B] string, confidence [B] float32 (geometric mean over the characters; 0 without),
        num_tokens [B] int32, tokens [B, N] string ("" past a row's number), token_starts and token_ends [B, N] float32
        in seconds, token_confidences [B, N] float32, logits [B, F, V] float32, num_frames [B] int32.

    Args:
        model: Model with its weights.
        tokenizer: Tokenizer of the model.
        decoder: Logits to tokens with frames, in the graph.
        receptive_field: Number of samples that one frame needs.
        hop_samples: Hop between frames, in samples.
        normalize: Whether rows are normalized before the model.
    """
    token_texts = list(tokenizer.token_strings)
    secs_per_frame = hop_samples / SAMPLE_RATE

    def logits(waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        missing = tf.maximum(receptive_field - tf.shape(waveform)[1], 0)  # convolutions refuse less than one frame
        return tf.cast(model(tf.pad(waveform, [[0, 0], [0, missing]]), lengths, training=False), tf.float32)

    def serve(waveform: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        lengths = tf.clip_by_value(lengths, 0, tf.shape(waveform)[1])
        if normalize:
            waveform = normalize_rows(waveform, lengths)
        found = logits(waveform, lengths)
        num_frames = model.output_lengths(lengths)
        decoded = decoder(found, num_frames)
        width = tf.reduce_max(tf.concat([decoded.num_tokens, [0]], axis=0))
        is_token = decoded.tokens[:, :width] >= 0
        texts = tf.where(is_token, tf.gather(tf.constant(token_texts), tf.maximum(decoded.tokens[:, :width], 0)), "")
        joined = tf.strings.regex_replace(tf.strings.reduce_join(texts, axis=1), r"\s+", " ")
        probs = tf.where(is_token, decoded.probs[:, :width], 0.0)
        is_character = tf.cast(tf.strings.length(tf.strings.strip(texts)) > 0, tf.float32)
        count = tf.reduce_sum(is_character, axis=1)
        log_sum = tf.reduce_sum(is_character * tf.math.log(tf.maximum(probs, SMALLEST_PROB)), axis=1)

        def secs(frames: tf.Tensor) -> tf.Tensor:
            return tf.where(is_token, tf.cast(frames[:, :width], tf.float32) * secs_per_frame, 0.0)

        return {
            "text": tf.strings.strip(joined),
            "confidence": tf.where(count > 0, tf.exp(log_sum / tf.maximum(count, 1.0)), 0.0),
            "num_tokens": decoded.num_tokens,
            "tokens": texts,
            "token_starts": secs(decoded.start_frames),
            "token_ends": secs(decoded.end_frames),
            "token_confidences": probs,
            "logits": found,
            "num_frames": num_frames,
        }

    waveform = tf.TensorSpec([None, None], tf.float32, name="waveform")
    lengths = tf.TensorSpec([None], tf.int32, name="lengths")
    exported = _Exported()
    exported.weights = list(model.variables)
    exported.serve = tf.function(serve, input_signature=[waveform, lengths], autograph=False)
    # For `ExportedModel`, which normalizes and decodes windows of long recordings on the host.
    exported.logits = tf.function(logits, input_signature=[waveform, lengths], autograph=False)
    exported.output_lengths = tf.function(model.output_lengths, input_signature=[lengths], autograph=False)
    return exported


def normalize_rows(waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Normalizes each row's valid samples to zero mean and unit variance, like training data, and zeroes the rest.

    Args:
        waveform: float32 [B, T].
        lengths: Numbers of valid samples, int32 [B].
    """
    valid = tf.sequence_mask(lengths, tf.shape(waveform)[1])
    count = tf.cast(tf.maximum(lengths, 1), tf.float64)[:, tf.newaxis]
    waveform = tf.where(valid, waveform, 0.0)
    mean = tf.reduce_sum(tf.cast(waveform, tf.float64), axis=1, keepdims=True) / count
    centred = tf.where(valid, waveform - tf.cast(mean, tf.float32), 0.0)
    variance = tf.reduce_sum(tf.cast(tf.square(centred), tf.float64), axis=1, keepdims=True) / count
    return centred * tf.cast(tf.math.rsqrt(variance + 1e-7), tf.float32)


def export(
    *,
    exported: tf.Module,
    output: str | os.PathLike[str],
    fields: dict[str, Any],
    card: str,
    tokenizer: Tokenizer,
    check: Callable[[Path], ExportCheck],
    more_files: Iterable[Path] = (),
) -> ExportCheck:
    """Writes an exported model, or nothing if it does not transcribe like the trained one.

    Args:
        exported: Result of `build_export`.
        output: New folder.
        fields: Content of export.json.
        card: Content of README.md.
        tokenizer: Tokenizer of the model; writes vocab.json.
        check: Compares the folder with the trained model; raises ValueError.
        more_files: Further files, moved into the folder from the same disk.

    Raises:
        ValueError: The folder is not empty, or the check fails.
    """
    check_new(output)
    target = Path(output)
    with folder_beside(target, purpose="exporting") as temporary:
        folder = temporary / "model"
        tf.saved_model.save(exported, os.fspath(folder), signatures={"serving_default": exported.serve})
        tokenizer.save(os.fspath(folder / VOCAB_FILE))
        result = check(folder)
        checked = {"num_recordings": result.num_recordings, "largest_difference": result.largest_difference}
        files.write_json_atomic(folder / EXPORT_FILE, {**fields, "checked": checked})
        files.write_text_atomic(folder / "README.md", card)
        for path in more_files:
            shutil.move(path, folder / path.name)
        if target.exists():
            target.rmdir()
        os.replace(folder, target)
    return result


@contextlib.contextmanager
def folder_beside(output: str | os.PathLike[str], *, purpose: str) -> Iterator[Path]:
    """Yields a temporary folder beside an output folder, on the same disk; removes it at the end."""
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{purpose}-{target.name}-"
    for left in target.parent.glob(f"{glob.escape(prefix)}????????"):  # left by a killed process
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(output: str | os.PathLike[str]) -> None:
    """Raises ValueError if the folder is not empty."""
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is not empty; give --output a new folder")


def compare(
    folder: Path,
    recordings: Iterable[tuple[str, np.ndarray]],
    *,
    read: Callable[[np.ndarray], tuple[str, np.ndarray]],
    precision: str,
) -> ExportCheck:
    """Compares the transcripts of an exported model with those of the trained one.

    Args:
        folder: Folder of the exported model.
        recordings: Name and waveform float32 [T], not normalized, of each recording.
        read: Returns text and log-probabilities [F, V] of the trained model.
        precision: Precision of the model, on which the allowed difference depends.

    Raises:
        ValueError: A transcript differs, or there are no recordings.
    """
    serve = tf.saved_model.load(os.fspath(folder)).signatures["serving_default"]
    num_recordings, largest = 0, 0.0
    for name, waveform in recordings:
        text, log_probs = read(waveform)
        found = serve(waveform=tf.constant(waveform[np.newaxis]), lengths=tf.constant([len(waveform)], tf.int32))
        exported_text = found["text"].numpy()[0].decode("utf-8")
        exported_log_probs = tf.nn.log_softmax(found["logits"][0, : len(log_probs)]).numpy()
        difference = float(np.abs(exported_log_probs - log_probs).max(initial=0.0))
        # Not >, so that NaN fails too.
        if exported_text != text or not difference <= _TOLERANCE[precision]:
            raise ValueError(
                f"the exported model transcribes {name} as {exported_text!r}, the trained one as {text!r} "
                f"(log-probabilities differ by {difference:.3g}); nothing was written"
            )
        num_recordings, largest = num_recordings + 1, max(largest, difference)
    if not num_recordings:
        raise ValueError("no recordings to check the export with; give some to --inputs")
    return ExportCheck(num_recordings, largest)
