"""Stops a run with too many consecutive skipped updates and names their utterances."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from common import storage
from common.workdir_layout import SKIPPED_FILE
from engine.common import files
from engine.common.signals import StopTraining
from engine.training.skipped_updates import SkipCounter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkipGuard:
    """Train action that stops the run when the skip counter reaches its limit.

    Attributes:
        counter: The trainer's counter of skipped updates.
        utterance_ids_of: Maps an update to the ids of its rows.
        workdir: Folder for the file of utterance ids.
        is_chief: Whether this process writes the file; all processes stop.
    """

    counter: SkipCounter
    utterance_ids_of: Callable[[int], list[str]]
    workdir: str | os.PathLike[str]
    is_chief: bool = True

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Checks the counter after a train loop.

        Raises:
            StopTraining: The limit was reached; the file is written.
        """
        del output
        updates, path = self.counter.take(), storage.join(self.workdir, SKIPPED_FILE)
        if not updates:
            return
        if self.is_chief:
            records = [{"update": update, "utterance_ids": self.utterance_ids_of(update)} for update in updates]
            files.write_jsonl_atomic(path, records)
        raise StopTraining(
            f"{len(updates)} updates in a row, {updates[0]} to {updates[-1]}, had a loss or gradient that is not "
            f"finite (train.max_consecutive_skips={self.counter.limit}); {path} lists their utterances: check them, "
            "lower train.learning_rate or set train.clip_norm; the same command continues after these updates"
        )
