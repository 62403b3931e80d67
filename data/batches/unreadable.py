"""Collects utterances that could not be read while batches were made, each with the first update that needed it."""

from __future__ import annotations

import threading
from typing import NamedTuple


class UnreadableUtterance(NamedTuple):
    """An utterance that could not be read.

    Attributes:
        update: First update that needed it, counted from 0.
        utterance_id: Id of the utterance.
        reason: One line that says what is wrong.
    """

    update: int
    utterance_id: str
    reason: str


class UnreadableUtterances:
    """A thread-safe collection that batch makers fill ahead of training."""

    def __init__(self) -> None:
        self._found: dict[str, UnreadableUtterance] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, *, update: int, utterance_id: str, reason: str) -> bool:
        """Adds an utterance and returns whether it is new."""
        with self._lock:
            known = self._found.get(utterance_id)
            # Batches are made in parallel, so the first to fail need not be the first to be trained on.
            if known is None or update < known.update:
                self._found[utterance_id] = UnreadableUtterance(update, utterance_id, reason)
            return known is None

    def before(self, update: int) -> list[UnreadableUtterance]:
        """Returns the utterances needed by updates before `update`, in the order of their updates.

        Those of batches prefetched beyond it are left out, because a run that resumes at `update` finds them itself.
        """
        with self._lock:
            return sorted(item for item in self._found.values() if item.update < update)
