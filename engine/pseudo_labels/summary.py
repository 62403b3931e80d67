"""Counts what a labelling keeps and leaves out, and compares labels with transcripts where there are some."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from engine.pseudo_labels.labels import REASONS, UNREADABLE

_NUM_BINS = 20  # of confidence, each 0.05 wide
_THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95)


@dataclasses.dataclass
class _Compared:
    """Sums over labels whose recordings have transcripts."""

    secs: float = 0.0
    errors: int = 0
    characters: int = 0

    def __add__(self, other: _Compared) -> _Compared:
        return _Compared(self.secs + other.secs, self.errors + other.errors, self.characters + other.characters)

    @property
    def cer(self) -> str:
        """The character error rate in percent; "" without transcripts."""
        return f"{100 * self.errors / self.characters:.2f}" if self.characters else ""


class Summary:
    """Adds up labels; it needs as much memory for a hundred thousand as for ten."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self.counts: Counter[str] = Counter()  # reason, "" = kept -> labels
        self.secs: Counter[str] = Counter()
        self._confidence = 0.0
        self._by_reason: dict[str, _Compared] = {}
        self._by_confidence = [_Compared() for _ in range(_NUM_BINS + 1)]

    def add(self, label: Mapping[str, Any]) -> None:
        """Adds a label as the journal holds it."""
        reason, secs = label.get("reason", ""), label.get("duration", 0.0)
        self.counts[reason] += 1
        self.secs[reason] += secs
        if not reason:
            self._confidence += label["confidence"]
        if "reference_chars" in label:
            compared = _Compared(secs, label["reference_errors"], label["reference_chars"])
            self._by_reason[reason] = self._by_reason.get(reason, _Compared()) + compared
            self._by_confidence[int(label["confidence"] * _NUM_BINS)] += compared

    @property
    def num_kept(self) -> int:
        """Number of labels that are kept."""
        return self.counts[""]

    @property
    def num_unreadable(self) -> int:
        """Number of rows that could not be read."""
        return self.counts[UNREADABLE]

    def lines(self) -> Iterator[str]:
        """Yields the table of what is kept and left out, and that of confidence against transcripts."""
        has_texts = any(compared.characters for compared in self._by_confidence)
        yield f"                   labels      hours{'  CER %' if has_texts else ''}"
        for name, reason in (("kept", ""), *((reason, reason) for reason in REASONS)):
            if self.counts[reason] or not reason:
                cer = self._by_reason.get(reason, _Compared()).cer
                row = f"{name:14}  {self.counts[reason]:9}  {self.secs[reason] / 3600:9.2f}  {cer:>5}"
                yield row.rstrip()
        if self.num_kept:
            yield f"mean confidence of what is kept: {self._confidence / self.num_kept:.3f}"
        if has_texts:
            yield from self._thresholds()

    def _thresholds(self) -> Iterator[str]:
        yield ""
        yield "the input has transcripts; with pseudo_label.min_confidence alone"
        yield "min_confidence      hours  share  CER %"
        total = sum(self._by_confidence, _Compared())
        for threshold in _THRESHOLDS:
            kept = sum(self._by_confidence[round(threshold * _NUM_BINS) :], _Compared())
            if kept.characters:
                yield (
                    f"{threshold:14.2f}  {kept.secs / 3600:9.2f}  {100 * kept.secs / total.secs:3.0f} %  {kept.cer:>5}"
                )
