"""Ranks transcripts by how well a trained model finds them in their audio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from common.readable import shorten
from data.common.errors import InputError
from data.doctor.audio_checks import SILENT_PEAK, AudioStatistics
from data.doctor.findings import SUSPECT, Finding
from data.doctor.text_checks import Corpus, robust_spread
from data.text.normalization import normalize_transcript

ScoreFn = Callable[[Iterable[tuple[np.ndarray, str]]], Iterator[tuple[float, str]]]
"""Pairs of a waveform, float32 [T] at 16 kHz, and its text -> (score, what the model hears) of each, in order.

The score is how much less likely a frame is, in nats, if the text was said than if the likeliest path was: 0 is a
perfect match, NaN a text that does not fit its audio."""

# A transcript is suspect if its score is this many robust standard deviations below the set's median, and low enough
# that more than a letter or two differ. Among many wrong transcripts the spread is wide: `_SURELY_WRONG` then decides.
_SPREADS = 5.0
_MIN_LOSS = 0.15
_SURELY_WRONG = 1.0
_SHOWN_CHARACTERS = 120


def check_transcripts(
    corpus: Corpus, audio: AudioStatistics, score_fn: ScoreFn, text_normalization: str
) -> list[Finding]:
    """Returns the transcripts of the decoded utterances that the model does not find in their audio, worst first.

    Args:
        corpus: The set.
        audio: Measurements of its decoded recordings.
        score_fn: Scores transcripts.
        text_normalization: Normalization style of the texts of the model.
    """
    texts = [normalize_transcript(text, text_normalization) for text in corpus.source.texts]
    usable = [
        int(index)
        for index, peak in zip(audio.indices, audio.peak, strict=True)
        if peak >= SILENT_PEAK and texts[index]  # NaN if it cannot be read
    ]
    # Recordings of similar length are computed together.
    usable.sort(key=lambda index: -corpus.source.num_samples[index])
    scored: list[int] = []

    def read() -> Iterator[tuple[np.ndarray, str]]:
        for index in usable:
            try:
                waveform = corpus.source.read_waveform(index)
            except (InputError, OSError, RuntimeError):
                continue  # has a finding of its own
            scored.append(index)
            yield waveform, texts[index]

    found = list(score_fn(read()))
    scores = np.array([score for score, _ in found])
    known = np.isfinite(scores)
    if not known.any():
        return []
    limit = _find_limit(scores[known])
    order = [position for position in np.argsort(scores, kind="stable") if known[position] and scores[position] < limit]
    details = {scored[position]: (scores[position], found[position][1]) for position in order}
    return corpus.find(
        SUSPECT,
        list(details),
        lambda index: (
            f"score {details[index][0]:.2f}; the model hears {shorten(details[index][1], _SHOWN_CHARACTERS)!r}"
        ),
    )


def _find_limit(scores: np.ndarray) -> float:
    """Returns the score below which a transcript is suspect, given those of the set, float [N]."""
    median, spread = robust_spread(scores)
    return max(min(median - _SPREADS * spread, -_MIN_LOSS), -_SURELY_WRONG)
