"""Compares converted models with the trained one: words, log-probabilities and speed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.evaluation.metrics import ErrorCounts, count_word_errors
from engine.inference.export.portable import FILES

# Share of words that may differ from the trained model's: none if the arithmetic is the same, a few if weights are
# rounded.
_DIFFERENT_WORDS = {"tflite_float32": 0.0, "onnx": 0.0, "tflite_float16": 0.02, "tflite_dynamic": 0.05}
# Largest difference of log-probabilities if the arithmetic is the same.
_TOLERANCE = 2e-3


class Recording(NamedTuple):
    """A recording to compare with.

    Attributes:
        name: Name for messages.
        waveform: float32 [T] at 16 kHz.
        reference: Normalized transcript, or None.
    """

    name: str
    waveform: np.ndarray
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class PortableCheck:
    """The result of comparing a converted model with the trained one on the same recordings, one at a time.

    Attributes:
        format: One of `engine.inference.export.portable.FILES`.
        file: Name of the file.
        num_bytes: Size of the file.
        num_recordings: Number of recordings.
        num_words: Number of words in the trained model's transcripts.
        num_different_words: Number of words that the converted model changes, lacks or adds.
        wer: Word error rate on the recordings with a transcript; None without any.
        trained_wer: Word error rate of the trained model on the same recordings.
        largest_difference: Largest difference of log-probabilities.
        speed: Speed relative to the trained model in TensorFlow, in float32.
    """

    format: str
    file: str
    num_bytes: int
    num_recordings: int
    num_words: int
    num_different_words: int
    wer: float | None
    trained_wer: float | None
    largest_difference: float
    speed: float


def check_portable(
    name: str,
    num_bytes: int,
    run: Callable[[np.ndarray], np.ndarray],
    recordings: Sequence[Recording],
    *,
    trained: Callable[[np.ndarray], np.ndarray],
    to_text: Callable[[np.ndarray], str],
) -> PortableCheck:
    """Compares a converted model with the trained one, alternating between the two.

    Args:
        name: Format of the converted model.
        num_bytes: Size of its file.
        run: The converted model: waveform [T] -> logits [F, V].
        recordings: Recordings, at least one.
        trained: The trained model: waveform [T] -> logits [F, V].
        to_text: Log-probabilities [F, V] -> text.

    Raises:
        ValueError: The model differs more than its format allows.
    """
    trained(recordings[0].waveform)  # the first call traces and allocates
    try:
        run(recordings[0].waveform)
    except RuntimeError as error:  # LiteRT and ONNX Runtime, for a graph that converts but cannot run
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"{name} does not run ({reason}); leave it out of --export_formats, nothing was written"
        ) from error
    trained_secs, secs, largest = 0.0, 0.0, 0.0
    trained_texts, texts = [], []
    for recording in recordings:
        wanted, taken = _timed(trained, recording.waveform)
        trained_secs += taken
        found, taken = _timed(run, recording.waveform)
        secs += taken
        trained_texts.append(to_text(wanted))
        texts.append(to_text(found))
        apart = np.abs(found - wanted).max(initial=0.0) if found.shape == wanted.shape else np.inf
        # np.maximum keeps NaN, which is below no tolerance.
        largest = float(np.maximum(largest, apart))
    changes = count_changed_words(
        recordings, trained_texts, texts, allowed=_DIFFERENT_WORDS[name], who=name,
        advice="leave it out of --export_formats",
    )  # fmt: skip
    if _DIFFERENT_WORDS[name] == 0 and not largest <= _TOLERANCE:
        raise ValueError(
            f"{name} gives log-probabilities that differ by {largest:.3g} from the trained model's "
            f"({_TOLERANCE:g} is allowed); leave it out of --export_formats, nothing was written"
        )
    return PortableCheck(
        format=name,
        file=FILES[name],
        num_bytes=num_bytes,
        num_recordings=len(recordings),
        num_words=changes.num_reference,
        num_different_words=changes.num_errors,
        wer=_wer(recordings, texts),
        trained_wer=_wer(recordings, trained_texts),
        largest_difference=largest,
        speed=trained_secs / secs,
    )


def count_changed_words(
    recordings: Sequence[Recording],
    trained: Sequence[str],
    texts: Sequence[str],
    *,
    allowed: float,
    who: str,
    advice: str,
) -> ErrorCounts:
    """Counts the words of the trained model's transcripts that other transcripts change, lack or add.

    Args:
        recordings: The transcribed recordings.
        trained: Transcripts of the trained model.
        texts: The other transcripts.
        allowed: Share of the words that may differ.
        who: Source of the other transcripts, for the message.
        advice: Advice for the message.

    Raises:
        ValueError: More words differ; names the first recording.
    """
    total = sum((count_word_errors(*pair) for pair in zip(trained, texts, strict=True)), ErrorCounts())
    if total.num_errors > allowed * total.num_reference:
        triples = zip(recordings, trained, texts, strict=True)
        recording, wanted, found = next(triple for triple in triples if triple[1] != triple[2])
        raise ValueError(
            f"{who} changes {total.num_errors} of {total.num_reference} words of the trained model's transcripts "
            f"({100 * allowed:g} % are allowed): {recording.name} is {found!r} instead of {wanted!r}; {advice}, "
            "nothing was written"
        )
    return total


def _timed(run: Callable[[np.ndarray], np.ndarray], waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns log-probabilities [F, V] and the time for the logits, in seconds."""
    start_secs = time.perf_counter()
    logits = run(waveform)
    taken = time.perf_counter() - start_secs
    return _log_softmax(logits), taken


def _wer(recordings: Sequence[Recording], texts: Sequence[str]) -> float | None:
    counts = [
        count_word_errors(recording.reference, text)
        for recording, text in zip(recordings, texts, strict=True)
        if recording.reference is not None
    ]
    return sum(counts, ErrorCounts()).rate if counts else None


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
