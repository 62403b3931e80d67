"""Cuts transcripts into utterances for training and decides which are kept."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from engine.evaluation.metrics import count_char_errors
from engine.inference.words import Timed, text_confidence

# Why a label is left out, in the order in which the reasons are looked for.
UNREADABLE = "unreadable"
NO_TEXT = "no_text"
TOO_SHORT = "too_short"
TOO_LONG = "too_long"
TOO_SLOW = "too_slow"
TOO_FAST = "too_fast"
LOW_CONFIDENCE = "low_confidence"
VIEWS_DISAGREE = "views_disagree"
REASONS = (NO_TEXT, TOO_SHORT, TOO_LONG, TOO_SLOW, TOO_FAST, LOW_CONFIDENCE, VIEWS_DISAGREE, UNREADABLE)


@dataclasses.dataclass(frozen=True)
class Label:
    """The text of a recording, or of a part of one.

    Attributes:
        words: The words, with times from the beginning of the recording.
        start_secs: Start of the part, in seconds.
        duration_secs: Duration of the part, in seconds.
        is_whole: Whether the part is the whole recording.
        second_text: What the second view heard in this part; None = there was none.
        is_torn: Whether the part begins or ends within a word, because a long recording has no pause there.
    """

    words: tuple[Timed, ...]
    start_secs: float
    duration_secs: float
    is_whole: bool
    second_text: str | None = None
    is_torn: bool = False

    @property
    def text(self) -> str:
        """The words, joined by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """Geometric mean of the characters' confidences; 0 without any."""
        return text_confidence(self.words)

    @property
    def chars_per_sec(self) -> float:
        """Characters a second, without spaces."""
        return sum(len(word.text) for word in self.words) / max(self.duration_secs, 1e-9)

    @property
    def words_per_sec(self) -> float:
        """Words a second."""
        return len(self.words) / max(self.duration_secs, 1e-9)

    @property
    def disagreement(self) -> float | None:
        """Character error rate of the second view's text against this one, upper case as lower case."""
        if self.second_text is None:
            return None
        return count_char_errors(self.text.casefold(), self.second_text.casefold()).rate

    def to_fields(self) -> dict[str, Any]:
        """Returns the fields of a manifest's line that the label decides."""
        fields: dict[str, Any] = {
            "text": self.text,
            "confidence": round(self.confidence, 4),
            "chars_per_sec": round(self.chars_per_sec, 2),
            "words_per_sec": round(self.words_per_sec, 2),
        }
        if self.disagreement is not None:
            fields["disagreement"] = round(self.disagreement, 4)
        return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelFilter:
    """The bounds within which a label is kept; 0 = no bound, see config.pseudo_label in configs/base.py."""

    min_confidence: float
    min_chars_per_sec: float
    max_chars_per_sec: float
    min_words_per_sec: float
    max_words_per_sec: float
    min_duration_secs: float
    max_disagreement: float

    def find_reason(self, label: Label) -> str:
        """Returns why a label is left out, one of `REASONS`; "" for one that is kept."""
        rates = (
            (label.chars_per_sec, self.min_chars_per_sec, self.max_chars_per_sec),
            (label.words_per_sec, self.min_words_per_sec, self.max_words_per_sec),
        )
        applies = {
            NO_TEXT: not label.words,
            TOO_SHORT: label.duration_secs < self.min_duration_secs,
            TOO_LONG: label.is_torn,
            TOO_SLOW: any(rate < low for rate, low, _ in rates),
            TOO_FAST: any(0 < high < rate for rate, _, high in rates),
            LOW_CONFIDENCE: label.confidence < self.min_confidence,
            VIEWS_DISAGREE: label.disagreement is not None and label.disagreement > self.max_disagreement,
        }
        return next((reason for reason in REASONS if applies.get(reason)), "")


def make_labels(
    words: Sequence[Timed], *, duration_secs: float, max_secs: float, second: Sequence[Timed] | None = None
) -> list[Label]:
    """Makes one label of a recording, or several of a long one.

    Args:
        words: The words of the recording.
        duration_secs: Duration of the recording, in seconds.
        max_secs: Longest part, in seconds; 0 = no limit.
        second: Words of the second view, in the time of the first; None = there is none.
    """
    edges = cut_at_pauses(words, duration_secs=duration_secs, max_secs=max_secs)
    torn = _torn_edges(words, edges)
    inside = _share_out(words, edges)
    heard = [None] * len(inside) if second is None else _share_out(second, edges)
    labels = []
    for start, end, own, other in zip(edges, edges[1:], inside, heard, strict=False):
        labels.append(
            Label(
                words=own,
                start_secs=start,
                duration_secs=end - start,
                is_whole=len(edges) == 2,
                second_text=None if other is None else " ".join(word.text for word in other),
                is_torn=not torn.isdisjoint((start, end)),
            )
        )
    return labels


def _share_out(words: Sequence[Timed], edges: Sequence[float]) -> list[tuple[Timed, ...]]:
    """Returns the words of each part; a word belongs where its middle is, as two views do not agree about its edges."""
    middles = [(word.start_secs + word.end_secs) / 2 for word in words]
    cuts = [0, *(bisect.bisect_left(middles, edge) for edge in edges[1:-1]), len(words)]
    return [tuple(words[first:last]) for first, last in zip(cuts, cuts[1:], strict=False)]


def _torn_edges(words: Sequence[Timed], edges: Sequence[float]) -> set[float]:
    """Returns the edges within a word."""
    starts = [word.start_secs for word in words]
    before = [(edge, bisect.bisect_left(starts, edge) - 1) for edge in edges]
    return {edge for edge, index in before if index >= 0 and edge < words[index].end_secs} - {edges[-1]}


def cut_at_pauses(words: Sequence[Timed], *, duration_secs: float, max_secs: float) -> list[float]:
    """Returns the edges of the parts of a recording, in seconds, its begin and end included.

    A part ends in the middle of the longest pause between two words in its second half, or of the last pause before
    that. Without any pause it is as long as it may be.
    """
    edges = [0.0]
    pauses = [((a.end_secs + b.start_secs) / 2, b.start_secs - a.end_secs) for a, b in itertools.pairwise(words)]
    middles = [middle for middle, _ in pauses]
    while 0 < max_secs < duration_secs - edges[-1]:
        first, half, last = (bisect.bisect_right(middles, edges[-1] + secs) for secs in (0.0, max_secs / 2, max_secs))
        late = pauses[half:last] or pauses[first:last][-1:] or [(edges[-1] + max_secs, 0.0)]
        # Not rounded: an edge just before its pause would be found again, for ever.
        edges.append(max(late, key=lambda pause: pause[1])[0])
    return [*edges, duration_secs]
