"""Keeps what is done of each recording, so that transcribe, align and segment continue after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from common import storage
from engine.common import files
from engine.common.journal import Journal, journal_path

Result = TypeVar("Result")


def version_of(path: str, text: str = "") -> dict[str, Any]:
    """Returns what differs if a recording or its transcript has changed.

    Raises:
        OSError: The recording is not there.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return {"audio": list(storage.state(path)), "text": digest}


def make_row(path: str, version: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row of a recording.

    Args:
        path: The recording.
        version: `version_of` the recording and its transcript.
        content: What was found.
    """
    return {"name": storage.absolute(path), "version": dict(version), **content}


class RecordingJournal(Journal):
    """A journal of recordings, whose last row counts: it was made because the recording had changed."""

    def __init__(self, output: str, *, mode: str, settings: Mapping[str, Any]) -> None:
        """Opens nothing yet.

        Args:
            output: What the command writes; the journal lies beside it, see `journal_path`.
            mode: The mode of the command.
            settings: What must not change between the processes that write the rows.
        """
        super().__init__(journal_path(output, mode=mode), files.to_json_value(settings))

    def find_missing(self, versions: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns the recordings that have no row or have changed since, and prints how many others there are.

        Args:
            versions: {path: `version_of` the recording and its transcript}.
        """
        done = {row.get("name"): row.get("version") for row in self.rows()}
        missing = [path for path, version in versions.items() if done.get(storage.absolute(path)) != version]
        if len(missing) < len(versions):
            print(f"continues: {len(versions) - len(missing)} of {len(versions)} recordings are in {self.path}")
        return missing

    def read_results(self, paths: Sequence[str], from_row: Callable[[Mapping[str, Any], str], Result]) -> list[Result]:
        """Returns the results of some recordings, in their order.

        Args:
            paths: Recordings that have a row.
            from_row: (row, path) -> the result; raises ValueError if the row is damaged.

        Raises:
            ValueError: A row is damaged.
        """
        rows = {row.get("name"): row for row in self.rows()}
        try:
            return [from_row(rows[storage.absolute(path)], path) for path in paths]
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; delete the file to begin anew") from error
