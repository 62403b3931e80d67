"""Writes shards with Apache Beam (extra `beam`), for corpora that are too large for one machine.

The workers need this package and its requirements, and must reach the corpus and the output under the same paths: URLs
such as gs://, or a disk that all of them share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tqdm import tqdm

from common import storage
from common.readable import describe_error
from data.common.errors import InputError
from data.common.files import Lock, write_text_atomic
from data.shards.writer import ShardTask, read_note, write_shard


class BeamRunner:
    """Runs shard tasks in a Beam pipeline.

    run = BeamRunner(options=["--runner=DataflowRunner", "--project=NAME"])
    write_tfrecords(utterances=utterances, output="gs://bucket/shards", runner=run)
    """

    def __init__(self, *, options: Sequence[str] = ()):
        """Checks that Apache Beam is installed.

        Args:
            options: Flags of Beam, such as --runner=DataflowRunner; by default its direct runner is used.

        Raises:
            InputError: If Apache Beam is not installed.
        """
        try:
            import apache_beam  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"--runner=beam needs Apache Beam, which is not installed ({error}): pip install -e '.[beam]'"
            ) from error
        self._options = list(options)

    def __call__(self, tasks: Sequence[ShardTask], *, folder: str, lock: Lock, bar: tqdm, max_bad: int) -> None:
        """Writes every shard and its note; the bar moves only at the end, because Beam reports no progress."""
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
                raise InputError(f"{task.path} was not written: check Beam's log and run the same command again")
            if "error" in note:
                storage.remove(task.note_path)
                raise InputError(note["error"])
            bar.update(len(task.utterances))


def write_or_tell(task: ShardTask) -> None:
    """Writes a shard, with bad input recorded in its note, because Beam would retry and then bury the message."""
    try:
        write_shard(task)
    except (InputError, OSError) as error:
        note = {"fingerprint": task.fingerprint, "error": describe_error(error)}
        write_text_atomic(task.note_path, json.dumps(note))
