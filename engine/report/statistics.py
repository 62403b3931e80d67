"""Estimates confidence intervals of error rates and tests differences between them.

Errors within an utterance depend on each other, and so do the utterances of a speaker. Resampling and matched pairs
therefore use whole speakers as independent pieces if a set has enough of them, else whole utterances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# With fewer speakers, their spread is a poor estimate of the spread of all speakers.
MIN_SPEAKERS = 10
_NUM_RESAMPLES = 1_000
_LEVEL = 0.95
_MAX_DRAWN = 4_000_000  # indices held at a time


@dataclasses.dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Significance test of the difference between two systems on the same utterances.

    Attributes:
        difference: Error rate of the second system minus that of the first.
        interval: Confidence interval of the difference; None with fewer than two pieces, or if all differ alike.
        better_ratio: Ratio of the resamples in which the second has the lower rate; None with fewer than two pieces.
        p_value: Two-sided p value of the null hypothesis of no difference; None with fewer than two pieces.
        num_pieces: Number of independent pieces, speakers or utterances.
        by_speaker: True if the pieces are speakers.
    """

    difference: float
    interval: Interval | None
    better_ratio: float | None
    p_value: float | None
    num_pieces: int
    by_speaker: bool

    @property
    def is_significant(self) -> bool:
        """Returns True if p is below 0.05."""
        return self.p_value is not None and self.p_value < 1 - _LEVEL


def pieces_of(speaker_ids: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Returns the number of each utterance's piece, int64 [N], and whether the pieces are speakers.

    Args:
        speaker_ids: Speaker of each utterance, "" for unknown.
    """
    if all(speaker_ids) and len(set(speaker_ids)) >= MIN_SPEAKERS:
        return np.unique(np.array(speaker_ids), return_inverse=True)[1], True
    return np.arange(len(speaker_ids)), False


def rate_interval(errors: Sequence[int], words: Sequence[int], speaker_ids: Sequence[str]) -> Interval | None:
    """Returns the 95 % percentile interval of the bootstrap for sum(errors) / sum(words).

    Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP).

    Args:
        errors: Errors of each utterance.
        words: Reference words (or characters) of each utterance.
        speaker_ids: Speaker of each utterance, "" for unknown.

    Returns:
        None with fewer than two pieces, or if all have the same rate, because the spread is then unknown.
    """
    pieces, _ = pieces_of(speaker_ids)
    totals = _totals(pieces, errors, words)
    if len(totals) < 2:
        return None
    drawn = _resample(totals)
    return _percentiles(drawn[:, 0] / np.maximum(drawn[:, 1], 1))


def compare_errors(
    errors: Sequence[int], other_errors: Sequence[int], words: Sequence[int], speaker_ids: Sequence[str]
) -> PairedTest:
    """Tests whether two systems differ on the utterances that both have transcribed.

    The p value is from the matched-pairs test of Gillick and Cox 1989, "Some statistical issues in the comparison of
    speech recognition algorithms" (ICASSP), with Student's distribution, which approaches their normal distribution
    as the number of pieces grows. Interval and `better_ratio` come from resampling both systems together (Bisani and
    Ney 2004, section 4).

    Args:
        errors: Errors of the first system in each utterance.
        other_errors: Errors of the second system in each utterance.
        words: Reference words of each utterance.
        speaker_ids: Speaker of each utterance, "" for unknown.
    """
    pieces, by_speaker = pieces_of(speaker_ids)
    totals = _totals(pieces, errors, other_errors, words)
    num_words = max(int(totals[:, 2].sum()), 1)
    difference = float(totals[:, 1].sum() - totals[:, 0].sum()) / num_words
    if len(totals) < 2:
        return PairedTest(difference, None, None, None, len(totals), by_speaker)
    drawn = _resample(totals)
    differences = (drawn[:, 1] - drawn[:, 0]) / np.maximum(drawn[:, 2], 1)
    return PairedTest(
        difference=difference,
        interval=_percentiles(differences),
        better_ratio=float((differences < 0).mean()),
        p_value=_matched_pairs(totals[:, 1] - totals[:, 0]),
        num_pieces=len(totals),
        by_speaker=by_speaker,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p values that hold for all of several tests together (Holm 1979); None stays None."""
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected


def _matched_pairs(differences: np.ndarray) -> float:
    if not differences.any():
        return 1.0
    if (differences == differences[0]).all():
        # Without any spread the test would be sure after two pieces; the signs alone are not.
        return float(2.0 ** (1 - len(differences)))
    # Here and not above: half a second that a process without a report should not wait for.
    from scipy import stats

    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _totals(pieces: np.ndarray, *columns: Sequence[int]) -> np.ndarray:
    """Sums of columns over the utterances of each piece, float64 [P, C]."""
    if not len(pieces):
        return np.zeros((0, len(columns)))
    return np.stack([np.bincount(pieces, weights=np.asarray(column, float)) for column in columns], axis=1)


def _resample(totals: np.ndarray) -> np.ndarray:
    """Sums over pieces drawn with replacement, as many as there are, float64 [_NUM_RESAMPLES, C]."""
    generator = np.random.default_rng(0)  # the same pieces give the same interval
    size = len(totals)
    at_a_time = max(1, min(_NUM_RESAMPLES, _MAX_DRAWN // size))
    sums = []
    for first in range(0, _NUM_RESAMPLES, at_a_time):
        drawn = generator.integers(size, size=(min(at_a_time, _NUM_RESAMPLES - first), size))
        sums.append(np.stack([column[drawn].sum(axis=1) for column in totals.T], axis=1))
    return np.concatenate(sums)


def _percentiles(values: np.ndarray) -> Interval | None:
    if np.ptp(values) < 1e-12:
        return None
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(low), float(high))
