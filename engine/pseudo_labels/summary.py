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
class _Bin:
    """Labels with transcripts within a range of confidence."""

    secs: float = 0.0
    errors: int = 0
    characters: int = 0


class Summary:
    """Adds up labels; it needs as much memory for a hundred thousand as for ten."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self.counts: Counter[str] = Counter()  # reason, "" = kept -> labels
        self.secs: Counter[str] = Counter()
        self._confidence = 0.0
        self._bins = [_Bin() for _ in range(_NUM_BINS + 1)]

    def add(self, label: Mapping[str, Any]) -> None:
        """Adds a label as the journal holds it."""
        reason, secs = label.get("reason", ""), label.get("duration", 0.0)
        self.counts[reason] += 1
        self.secs[reason] += secs
        if not reason:
            self._confidence += label["confidence"]
        if "reference_chars" in label:
            found = self._bins[int(label["confidence"] * _NUM_BINS)]
            found.secs += secs
            found.errors += label["reference_errors"]
            found.characters += label["reference_chars"]

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
        mean = f", mean confidence {self._confidence / self.num_kept:.3f}" if self.num_kept else ""
        yield f"kept            {self.num_kept:9}  {self.secs[''] / 3600:9.2f} h{mean}"
        for reason in REASONS:
            if self.counts[reason]:
                yield f"{reason:14}  {self.counts[reason]:9}  {self.secs[reason] / 3600:9.2f} h"
        if any(found.characters for found in self._bins):
            yield ""
            yield "the input has transcripts; with a confidence of at least"
            yield "  min_confidence    hours  share  CER %"
            total = sum(found.secs for found in self._bins)
            for threshold in _THRESHOLDS:
                kept = self._bins[round(threshold * _NUM_BINS) :]
                secs, characters = sum(found.secs for found in kept), sum(found.characters for found in kept)
                if characters:
                    rate = 100 * sum(found.errors for found in kept) / characters
                    yield f"  {threshold:14.2f}  {secs / 3600:7.2f}  {100 * secs / total:4.0f} %  {rate:5.2f}"
