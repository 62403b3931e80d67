"""Utterances that could not be read while batches were made: each once, with the update that wanted it first."""

from __future__ import annotations

import threading
from typing import NamedTuple


class UnreadableUtterance(NamedTuple):
    """Attributes are the update that first wanted it, counted from 0, its id, and one line about what is wrong."""

    update: int
    utterance_id: str
    reason: str


class UnreadableUtterances:
    """A collection that batch makers fill ahead of training. Thread-safe."""

    def __init__(self) -> None:
        self._found: dict[str, UnreadableUtterance] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, *, update: int, utterance_id: str, reason: str) -> bool:
        """Notes an utterance; returns whether it is a new one."""
        with self._lock:
            known = self._found.get(utterance_id)
            # Batches are made side by side: the one that fails first need not be the first that is trained on.
            if known is None or update < known.update:
                self._found[utterance_id] = UnreadableUtterance(update, utterance_id, reason)
            return known is None

    def before(self, update: int) -> list[UnreadableUtterance]:
        """Returns those that the updates before `update` met, in the order of their updates.

        What was prefetched beyond it is left out: a run that resumes there will meet it itself.
        """
        with self._lock:
            return sorted(item for item in self._found.values() if item.update < update)
