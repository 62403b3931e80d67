"""Lists the recordings of manifests, prepared shards and folders of audio, one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from common import storage
from data.corpus.faults import Fault
from data.corpus.manifest import ONE_FILE_FORMATS, delimiter_of, iterate_rows
from data.corpus.records import iterate_lines, read_table_records
from data.corpus.utterance import Row, stem, suffix
from data.shards.index import INDEX_NAME
from data.shards.source import TFRecordSource
from data.text.normalization import normalize_transcript
from data.unlabelled.recordings import FileRecording, ShardRecording

_MANIFESTS = tuple(f".{format}" for format in ONE_FILE_FORMATS)
_ROWS_AT_ONCE = 256  # whose files are asked for their states together; behind a URL each takes tens of milliseconds


class Unusable(NamedTuple):
    """A row that names no recording.

    Attributes:
        name: The file and line of the row, or its utterance id.
        reason: What is wrong.
    """

    name: str
    reason: str


Recording = FileRecording | ShardRecording


class UnlabelledCorpus:
    """The recordings of several inputs, in order; no audio and no header is read before it is asked for.

    corpus = UnlabelledCorpus(["unlabelled.jsonl", "folder/"], find_audio=find_audio, text_normalization="librispeech")
    for recording in corpus:
        print(recording.utterance_id, recording.count_samples())
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        find_audio: Callable[[Sequence[str]], list[str]],
        text_normalization: str,
        on_rate_mismatch: str = "resample",
    ) -> None:
        """Reads nothing yet.

        Args:
            inputs: Manifests (.jsonl, .csv, .tsv), folders of `python -m data.prepare`, audio files, folders and
                patterns of audio files.
            find_audio: Paths and patterns -> audio files.
            text_normalization: Style of `normalize_transcript` for the transcripts that a manifest happens to have.
            on_rate_mismatch: "resample" to 16 kHz, or "refuse".
        """
        self._inputs = list(inputs)
        self._find_audio = find_audio
        self._found: dict[str, list[str]] = {}
        self._text_normalization = text_normalization
        self._on_rate_mismatch = on_rate_mismatch

    def count(self) -> int:
        """Returns the number of rows, faulty ones included."""
        return sum(self._count(path) for path in self._inputs)

    def __iter__(self) -> Iterator[Recording | Unusable]:
        """Yields each row; ids that occur more than once get a number."""
        seen: dict[str, int] = {}
        for path in self._inputs:
            for item in self._list(path):
                if not isinstance(item, Unusable):
                    item.utterance_id = _unique(item.utterance_id, seen)
                yield item

    def with_versions(self) -> Iterator[tuple[Recording | Unusable, dict[str, Any]]]:
        """Yields each row with what differs if its recording, or what its list says of it, has changed.

        A version holds the size and time of the file, taken before anything is read of it, and a digest of the rest of
        the row.
        """
        rows = iter(self)
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            # Records of a shard and members of an archive share a file.
            files = list(dict.fromkeys(row.file for row in some if not isinstance(row, Unusable)))
            state_of = dict(zip(files, storage.states_or_none(files), strict=True))
            for row in some:
                if isinstance(row, Unusable):
                    yield row, {"reason": row.reason}
                else:
                    state = state_of[row.file]
                    yield row, {"audio": None if state is None else list(state), "row": row.digest()}

    def _count(self, path: str) -> int:
        if is_shards(path):
            return len(TFRecordSource(input=path).utterance_ids)
        if suffix(path) not in _MANIFESTS:
            return len(self._files(path))
        if delimiter := delimiter_of(path):
            faults: list[Fault] = []
            return len(read_table_records(path, delimiter, faults.append, needs_text=False)) + len(faults)
        return sum(1 for _ in iterate_lines(path))

    def _list(self, path: str) -> Iterator[Recording | Unusable]:
        if is_shards(path):
            return self._list_shards(path)
        return self._list_manifest(path) if suffix(path) in _MANIFESTS else self._list_files(path)

    def _list_shards(self, path: str) -> Iterator[Recording | Unusable]:
        source = TFRecordSource(input=path)
        for index, name in enumerate(source.utterance_ids):
            yield ShardRecording(source, index, utterance_id=name, folder=path)

    def _list_files(self, path: str) -> Iterator[Recording | Unusable]:
        for found in self._files(path):
            yield self._recording(Row(stem(found), found, "", ""))

    def _files(self, path: str) -> list[str]:
        if path not in self._found:
            self._found[path] = self._find_audio([path])
        return self._found[path]

    def _list_manifest(self, path: str) -> Iterator[Recording | Unusable]:
        faults: list[Fault] = []
        for row in iterate_rows(path, faults.append):
            yield from _drain(faults)
            yield self._recording(row)
        yield from _drain(faults)

    def _recording(self, row: Row) -> FileRecording:
        return FileRecording(
            row,
            reference=normalize_transcript(row.text, self._text_normalization) if row.text else "",
            on_rate_mismatch=self._on_rate_mismatch,
        )


def is_shards(path: str) -> bool:
    """Returns whether a path is a folder that `python -m data.prepare` wrote."""
    return storage.is_file(storage.join(path, INDEX_NAME))


def _drain(faults: list[Fault]) -> Iterator[Unusable]:
    found, faults[:] = list(faults), []
    for fault in found:
        yield from (Unusable(name, reason) for name, reason in fault.details.items())


def _unique(utterance_id: str, seen: dict[str, int]) -> str:
    """Returns an id that was not seen before, the same or with a number behind it.

    Args:
        utterance_id: The wanted id.
        seen: Id -> how often it was wanted; gets the new one.
    """
    name = utterance_id
    while name in seen:
        seen[utterance_id] += 1
        name = f"{utterance_id}-{seen[utterance_id]}"
    seen[name] = 1
    return name
