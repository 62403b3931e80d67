"""Writes one shard, completely or not at all, with a note beside it that identifies its input.

The code runs in any process that can reach the corpus and the output: a worker on this machine or of Apache Beam. The
process that started it reads the outcome from the note.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common import storage
from common.json_files import MalformedFileError, field, parse_object
from common.readable import describe_error
from data.audio.decoding import SAMPLE_RATE, resampled_length
from data.audio.open_files import OpenFiles
from data.common.errors import InputError
from data.common.files import write_text_atomic
from data.corpus.utterance import Utterance
from data.shards.index import COLUMNS, check_columns, file_sha256
from data.shards.records import encode_audio, encode_record

# Framing of a TFRecord: the length with its CRC before the record, and the CRC of the record after it.
_HEAD_BYTES, _TAIL_BYTES = 12, 4


@dataclass(frozen=True)
class ShardTask:
    """Content of a shard to write.

    Attributes:
        path: Path or URL of the shard.
        utterances: Utterances in order.
        texts: Normalized transcripts.
        payload: One of `data.shards.records.PAYLOADS`.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".
        max_bad: Most unreadable utterances to leave out.
        fingerprint: Digest of everything that decides the bytes of the shard, except for the audio.
        newest_ns: Time of the latest change of an audio file.
    """

    path: str
    utterances: Sequence[Utterance]
    texts: Sequence[str]
    payload: str
    on_rate_mismatch: str
    max_bad: int
    fingerprint: str
    newest_ns: int

    @property
    def name(self) -> str:
        """The file name of the shard."""
        return os.path.basename(self.path)

    @property
    def note_path(self) -> str:
        """The path of the note beside the shard."""
        return storage.join(os.path.dirname(self.path), f".{self.name}.json")


def write_shard(
    task: ShardTask,
    *,
    advance: Callable[[int], None] = lambda count: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Writes a shard and then its note, both atomically.

    Args:
        task: Shard to write.
        advance: Called with the number of utterances done.
        is_stopped: Called before each utterance; if it returns True, no file is left.

    Returns:
        The note: `fingerprint`, `num_bytes`, `sha256`, `num_encoded` (re-encoded utterances), `skipped` (utterance id
        -> [code, message]) and `columns` as in the index. None if stopped.

    Raises:
        InputError: If more than `max_bad` utterances cannot be read.
        OSError: If the shard cannot be written.
    """
    storage.remove(task.note_path)
    if storage.is_remote(task.path):
        handle, temporary = tempfile.mkstemp(suffix=".tfrecord")
        os.close(handle)
    else:
        temporary = storage.join(os.path.dirname(task.path), f".{task.name}.{os.getpid()}.tmp")
    try:
        note = _write_records(task, temporary, advance, is_stopped)
        if note is None:
            return None
        note["sha256"] = file_sha256(temporary)
        if storage.is_remote(task.path):  # a reader must not see a partial shard
            storage.copy(temporary, f"{task.path}.tmp")
            storage.replace(f"{task.path}.tmp", task.path)
        else:
            os.replace(temporary, task.path)
        write_text_atomic(task.note_path, json.dumps(note))
    finally:
        storage.remove(temporary)
    return note


def read_note(task: ShardTask) -> dict[str, Any] | None:
    """Returns the note of a shard that was written for `task`; None if it is absent, damaged or of another task.

    It checks neither the shard nor any times.
    """
    try:
        note = parse_object(storage.read_bytes(task.note_path), task.note_path)
        if note.get("fingerprint") != task.fingerprint:
            return None
        if "error" in note:
            field(note, "error", str, task.note_path)
            return note
        field(note, "sha256", str, task.note_path)
        num_encoded = field(note, "num_encoded", int, task.note_path)
        columns = field(note, "columns", dict, task.note_path)
        num_utterances = len(field(columns, "utterance_id", list, task.note_path))
        sizes = [(num_utterances, field(note, "num_bytes", int, task.note_path))]
        check_columns(columns, sizes, task.note_path)
        skipped = field(note, "skipped", dict, task.note_path)
    except (OSError, MalformedFileError):
        return None
    is_plain = all(isinstance(why, list) and [type(item) for item in why] == [str, str] for why in skipped.values())
    return note if is_plain and 0 <= num_encoded <= num_utterances else None


def is_intact(task: ShardTask, num_bytes: int, sha256: str) -> bool:
    """Returns whether the shard exists with this size and checksum."""
    try:
        return storage.state(task.path).num_bytes == num_bytes and file_sha256(task.path) == sha256
    except OSError:
        return False


def too_many_bad(skipped: dict[str, Any], max_bad: int) -> InputError:
    """Returns the error for more bad utterances than allowed; `skipped` maps ids to [code, message]."""
    _, message = next(iter(skipped.values()))
    return InputError(f"{message} (bad utterances: {len(skipped)}, allowed by --max_unreadable_ratio: {max_bad})")


def digest(parts: Any) -> str:
    """Returns the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def _write_records(
    task: ShardTask, temporary: str, advance: Callable[[int], None], is_stopped: Callable[[], bool]
) -> dict[str, Any] | None:
    import tensorflow as tf

    columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
    skipped: dict[str, list[str]] = {}
    position = num_encoded = 0
    files = OpenFiles()
    try:
        with tf.io.TFRecordWriter(temporary) as writer:
            for utterance, text in zip(task.utterances, task.texts, strict=True):
                if is_stopped():
                    return None
                try:
                    audio, num_samples, is_original = encode_audio(
                        utterance.audio_filepath,
                        payload=task.payload,
                        on_rate_mismatch=task.on_rate_mismatch,
                        start=utterance.start,
                        num_samples=utterance.num_samples,
                        channel=utterance.channel,
                        files=files,
                    )
                    _check_length(utterance, num_samples)
                # A bad recording must not prevent the others from being written.
                except (ValueError, RuntimeError, OSError, MemoryError) as error:
                    skipped[utterance.utterance_id] = _describe_bad(utterance, error)
                    if len(skipped) > task.max_bad:
                        raise too_many_bad(skipped, task.max_bad) from error
                    advance(1)
                    continue
                ids = {"utterance_id": utterance.utterance_id, "speaker_id": utterance.speaker_id, "text": text}
                record = encode_record(audio=audio, num_samples=num_samples, **ids)
                writer.write(record)
                row = {
                    **ids,
                    "num_samples": num_samples,
                    "offset": position + _HEAD_BYTES,
                    "length": len(record),
                    "crc32": zlib.crc32(record),
                }
                for key in COLUMNS:
                    columns[key].append(row[key])
                position += _HEAD_BYTES + len(record) + _TAIL_BYTES
                num_encoded += not is_original
                advance(1)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {task.path} ({error.message}): make room, or choose another --output") from error
    return {
        "fingerprint": task.fingerprint,
        "num_bytes": position,
        "num_encoded": num_encoded,
        "skipped": skipped,
        "columns": columns,
    }


def _describe_bad(utterance: Utterance, error: Exception) -> list[str]:
    if isinstance(error, InputError):
        return [error.code or "unreadable_audio", str(error)]
    reason = describe_error(error)
    return ["unreadable_audio", f"cannot read {utterance.audio_filepath} ({reason}): fetch or make it again"]


def _check_length(utterance: Utterance, num_samples: int) -> None:
    wanted = resampled_length(utterance.num_samples, utterance.sample_rate, SAMPLE_RATE)
    if num_samples != wanted:  # the file was replaced after it was listed
        raise InputError(
            f"{utterance.audio_filepath} has {num_samples} samples, {wanted} when it was listed: "
            "start again with the new files"
        )
