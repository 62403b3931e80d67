"""Shards written by Apache Beam, for corpora beyond one machine (`pip install apache-beam`, extra `beam`).

The workers need this package and its requirements, and must reach the corpus and the output under the same paths:
URLs such as gs://, or a disk that all of them share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tqdm import tqdm

from common import storage
from data.common.errors import InputError
from data.common.files import Lock, write_text_atomic
from data.shards.writer import ShardTask, read_note, write_shard


class BeamRunner:
    """A `data.shards.preparation.Runner` over a Beam pipeline."""

    def __init__(self, *, options: Sequence[str] = ()):
        """Args: options: Beam's own flags, such as --runner=DataflowRunner; none: the direct runner."""
        try:
            import apache_beam  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"--runner=beam needs Apache Beam, which is not here ({error}): pip install -e '.[beam]'"
            ) from error
        self._options = list(options)

    def __call__(self, tasks: Sequence[ShardTask], *, folder: str, lock: Lock, bar: tqdm, max_bad: int) -> None:
        """As `data.shards.local_runner.LocalRunner`; the bar moves at the end, as Beam does not tell."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        with beam.Pipeline(options=PipelineOptions(self._options)) as pipeline:
            _ = (
                pipeline
                | "shards" >> beam.Create(tasks)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(write_or_tell)
            )
        for task in tasks:
            note = read_note(task)
            if note is None:
                raise InputError(f"{task.path} was not written: look into Beam's log, run the same command again")
            if "error" in note:
                storage.remove(task.note_path)
                raise InputError(note["error"])
            bar.update(len(task.utterances))


def write_or_tell(task: ShardTask) -> None:
    """Writes a shard; bad input goes into its note, for Beam would try again and then bury the message."""
    try:
        write_shard(task)
    except (InputError, OSError) as error:
        note = {"fingerprint": task.fingerprint, "error": " ".join(str(error).split())}
        write_text_atomic(task.note_path, json.dumps(note))
