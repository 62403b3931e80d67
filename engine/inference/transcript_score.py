"""Scores how well known transcripts fit their audio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.protocols import Aligner, Alignment

_BATCH_SIZE = 8


def match_score(log_probs: np.ndarray, found: Alignment) -> float:
    """Returns how much less likely a frame is, in nats, if the transcript was said than if the likeliest path was.

    Args:
        log_probs: Log-probabilities of the recording, float32 [F, V].
        found: The most likely path of the transcript.
    """
    return (found.log_prob - float(log_probs.max(axis=-1).sum())) / len(log_probs)


def score_transcripts(
    transcriber: Transcriber, aligner: Aligner, items: Iterable[tuple[np.ndarray, str]]
) -> Iterator[tuple[float, str]]:
    """Yields the score of each transcript, NaN if it does not fit its audio, and what the model hears.

    Args:
        transcriber: Computes the log-probabilities.
        aligner: Finds the frames of given labels, blank included.
        items: Pairs of a waveform, float32 [T] at 16 kHz, and its normalized text.
    """
    batch: list[tuple[np.ndarray, str]] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH_SIZE:
            yield from _score_batch(transcriber, aligner, batch)
            batch = []
    yield from _score_batch(transcriber, aligner, batch)


def _score_batch(
    transcriber: Transcriber, aligner: Aligner, batch: list[tuple[np.ndarray, str]]
) -> Iterator[tuple[float, str]]:
    short = [len(waveform) <= transcriber.window_secs * SAMPLE_RATE for waveform, _ in batch]
    rows = [transcriber.normalize(waveform) for (waveform, _), fits in zip(batch, short, strict=True) if fits]
    together = iter(transcriber.log_probs(rows) if rows else [])
    for (waveform, text), fits in zip(batch, short, strict=True):
        if fits:
            log_probs = next(together)
        else:
            log_probs = np.concatenate([chunk.log_probs for chunk in transcriber.stream_log_probs([waveform])])
        yield _score(transcriber, aligner, log_probs, text)


def _score(transcriber: Transcriber, aligner: Aligner, log_probs: np.ndarray, text: str) -> tuple[float, str]:
    if not len(log_probs):
        return math.nan, ""
    heard = transcriber.text_of_log_probs(log_probs)
    try:
        return match_score(log_probs, aligner(log_probs, transcriber.tokenizer.encode(text))), heard
    except ValueError:
        return math.nan, heard
