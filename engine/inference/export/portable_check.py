"""Converted recognizers beside the trained one: the same words, how far apart the numbers, how fast."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.evaluation.metrics import ErrorCounts, count_word_errors
from engine.inference.export.portable import FILES

# Share of words that may be others than the trained model's: none where the arithmetic is the same, a few where weights
# are rounded. Beyond, something is broken.
_DIFFERENT_WORDS = {"tflite_float32": 0.0, "onnx": 0.0, "tflite_float16": 0.02, "tflite_dynamic": 0.05}
# Of log-probabilities, where the arithmetic is the same.
_TOLERANCE = 2e-3


class Recording(NamedTuple):
    """A recording to compare with.

    Attributes:
        name: For who reads of it.
        waveform: float32 [T] at 16 kHz.
        reference: Its normalized transcript, if there is one.
    """

    name: str
    waveform: np.ndarray
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class PortableCheck:
    """How a converted recognizer compares with the trained one on the same recordings, one at a time.

    Attributes:
        format: One of `engine.inference.export.portable.FILES`.
        file: Its file.
        num_bytes: Of the file.
        num_recordings: Compared.
        num_words: That the trained model hears in them.
        num_different_words: Words of these that the converted one changes, lacks or adds.
        wer: Its word error rate on the recordings with a transcript; None without any.
        trained_wer: The trained model's on the same.
        largest_difference: Of log-probabilities.
        speed: How many times as fast as the trained model in TensorFlow, in float32.
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
    """Compares a converted recognizer with the trained one, in turns.

    Args:
        name: Its format.
        num_bytes: Of its file.
        run: Waveform [T] -> logits [F, V].
        recordings: At least one.
        trained: The trained model, as `run`.
        to_text: Log-probabilities [F, V] -> text.

    Raises:
        ValueError: It differs more than its format may.
    """
    trained(recordings[0].waveform)  # the first call plans and allocates
    try:
        run(recordings[0].waveform)
    except RuntimeError as error:  # of LiteRT and of ONNX Runtime, where a graph converts but cannot run
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
        # The largest of NaN is NaN, which is below no tolerance.
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
    """Counts the words of the trained model's texts that others change, lack or add.

    Args:
        recordings: That were read.
        trained: The trained model's texts of them.
        texts: The others.
        allowed: Share of the words that may differ.
        who: Reads the others, for the message.
        advice: What to do, for the message.

    Raises:
        ValueError: More differ; names the first recording.
    """
    total = sum((count_word_errors(*pair) for pair in zip(trained, texts, strict=True)), ErrorCounts())
    if total.num_errors > allowed * total.num_reference:
        triples = zip(recordings, trained, texts, strict=True)
        recording, wanted, found = next(triple for triple in triples if triple[1] != triple[2])
        raise ValueError(
            f"{who} reads {total.num_errors} of {total.num_reference} words otherwise than the trained model "
            f"({100 * allowed:g} % are allowed), {recording.name} as {found!r} and not {wanted!r}; {advice}, "
            "nothing was written"
        )
    return total


def _timed(run: Callable[[np.ndarray], np.ndarray], waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Log-probabilities [F, V] and the seconds that their logits took."""
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
