"""Converted recognizers beside the trained one: the same words, how far apart the numbers, how fast."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.inference.portable import FILES
from engine.metrics import ErrorCounts, count_word_errors

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
        format: One of `engine.inference.portable.FILES`.
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
    models: Mapping[str, tuple[int, Callable[[np.ndarray], np.ndarray]]],
    recordings: Sequence[Recording],
    *,
    trained: Callable[[np.ndarray], np.ndarray],
    to_text: Callable[[np.ndarray], str],
) -> list[PortableCheck]:
    """Compares converted recognizers with the trained one.

    Args:
        models: Format -> size of the file in bytes, and waveform [T] -> logits [F, V].
        recordings: At least one.
        trained: The trained model, as the others.
        to_text: Log-probabilities [F, V] -> text.

    Raises:
        ValueError: One differs more than its format may.
    """
    runs = {"": trained, **{name: run for name, (_, run) in models.items()}}
    secs = dict.fromkeys(runs, 0.0)
    texts: dict[str, list[str]] = {name: [] for name in runs}
    differences = dict.fromkeys(models, 0.0)
    for name, run in runs.items():
        try:
            run(recordings[0].waveform)  # the first call plans and allocates
        except RuntimeError as error:  # of LiteRT and of ONNX Runtime, where a graph converts but cannot run
            reason = str(error).splitlines()[0][:200]
            raise ValueError(
                f"{name} does not run ({reason}); leave it out of --export_formats, nothing was written"
            ) from error
    for recording in recordings:
        wanted = np.zeros(0)
        for name, run in runs.items():
            start_secs = time.perf_counter()
            logits = run(recording.waveform)
            secs[name] += time.perf_counter() - start_secs
            log_probs = _log_softmax(logits)
            texts[name].append(to_text(log_probs))
            if name:
                # The largest of NaN is NaN, which is below no tolerance.
                same_shape = log_probs.shape == wanted.shape
                apart = np.abs(log_probs - wanted).max(initial=0.0) if same_shape else np.inf
                differences[name] = float(np.maximum(differences[name], apart))
            else:
                wanted = log_probs
    trained_wer = _wer(recordings, texts[""])
    found = []
    for name, (num_bytes, _) in models.items():
        changes = [count_word_errors(*pair) for pair in zip(texts[""], texts[name], strict=True)]
        total = sum(changes, ErrorCounts())
        _refuse_other_words(name, recordings, texts, total)
        if _DIFFERENT_WORDS[name] == 0 and not differences[name] <= _TOLERANCE:
            raise ValueError(
                f"{name} gives log-probabilities that differ by {differences[name]:.3g} from the trained model's "
                f"({_TOLERANCE:g} is allowed); leave it out of --export_formats, nothing was written"
            )
        found.append(
            PortableCheck(
                format=name,
                file=FILES[name],
                num_bytes=num_bytes,
                num_recordings=len(recordings),
                num_words=total.num_reference,
                num_different_words=total.num_errors,
                wer=_wer(recordings, texts[name]),
                trained_wer=trained_wer,
                largest_difference=differences[name],
                speed=secs[""] / secs[name],
            )
        )
    return found


def _refuse_other_words(
    name: str, recordings: Sequence[Recording], texts: Mapping[str, Sequence[str]], total: ErrorCounts
) -> None:
    if total.num_errors <= _DIFFERENT_WORDS[name] * total.num_reference:
        return
    pairs = zip(recordings, texts[""], texts[name], strict=True)
    recording, trained, other = next(pair for pair in pairs if pair[1] != pair[2])
    raise ValueError(
        f"{name} reads {total.num_errors} of {total.num_reference} words otherwise than the trained model "
        f"({100 * _DIFFERENT_WORDS[name]:g} % are allowed), {recording.name} as {other!r} and not {trained!r}; leave "
        "it out of --export_formats, nothing was written"
    )


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
