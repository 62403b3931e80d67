"""Utterances as TFRecord shards with an index: feature spec, parallel writer, random-access reader.

A record holds int16 samples at 16 kHz and the normalized transcript. `index.json` holds every text,
length and byte offset, so that reading utterance 271,000 costs one `pread` and no scan.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.audio import SAMPLE_RATE
from data.errors import InputError
from data.files import only_writer, write_text_atomic
from data.index import (
    COLUMNS,
    FORMAT_VERSION,
    INDEX_NAME,
    file_sha256,
    find_index,
    has_size,
    read_index,
    verify_shards,
)
from data.manifest import Utterance, select_speakers
from data.sources import FileSource
from data.text import normalize_transcript

_FULL_SCALE = 32768
# Framing of a TFRecord: length and its CRC before the payload, the payload's CRC after it.
_HEAD_BYTES, _TAIL_BYTES = 12, 4

_Written = tuple[str, dict[str, list[Any]]]  # SHA-256 and columns of a shard


def feature_spec() -> dict[str, Any]:
    """Features of a record, for `tf.io.parse_example`; `audio` is little-endian int16 at 16 kHz."""
    import tensorflow as tf  # takes seconds, which listing and checking shards need not wait for

    kinds = {
        "audio": tf.string,
        "num_samples": tf.int64,
        "text": tf.string,
        "utterance_id": tf.string,
        "speaker_id": tf.string,
    }
    return {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}


def _encode(*, waveform: np.ndarray, text: str, utterance_id: str, speaker_id: str) -> bytes:
    import tensorflow as tf

    samples = np.clip(np.rint(waveform * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
    example = tf.train.Example()
    feature = example.features.feature
    feature["audio"].bytes_list.value.append(samples.tobytes())
    feature["num_samples"].int64_list.value.append(len(samples))
    feature["text"].bytes_list.value.append(text.encode())
    feature["utterance_id"].bytes_list.value.append(utterance_id.encode())
    feature["speaker_id"].bytes_list.value.append(speaker_id.encode())
    return example.SerializeToString(deterministic=True)  # a map has no order of its own


def _decode(payload: bytes) -> np.ndarray:
    import tensorflow as tf

    feature = tf.train.Example.FromString(payload).features.feature
    samples = np.frombuffer(feature["audio"].bytes_list.value[0], dtype="<i2")
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)


class TFRecordSource:
    """A `Source` over the shards that `write_tfrecords` made; needs the index, scans nothing."""

    def __init__(
        self,
        *,
        input: str | os.PathLike[str],
        split: str = "",
        speakers: Collection[str] = (),
        exclude_speakers: Collection[str] = (),
    ):
        """Reads the index and checks that every shard is there, at its full size.

        Args:
            input: folder of the shards, or the folder above.
            split: INPUT/SPLIT where that folder has an index, else INPUT, which must then hold that
                split; "" takes what INPUT holds.
            speakers: keep these speakers alone; empty keeps all.
            exclude_speakers: then drop these.

        Raises:
            InputError: no index, one of another format version, or missing or cut shards.
        """
        folder = find_index(Path(input), split)
        index = read_index(folder)
        self._shard_paths = []
        for shard in index["shards"]:
            path = folder / shard["name"]
            if not has_size(path, shard["num_bytes"]):
                raise InputError(f"{path} is missing or cut: run python -m data.prepare again")
            self._shard_paths.append(path)
        columns = index["columns"]
        kept = select_speakers(
            columns["speaker_id"],
            speakers=speakers,
            exclude_speakers=exclude_speakers,
            where=str(folder),
        )
        counts = [shard["num_utterances"] for shard in index["shards"]]
        self._shard = np.repeat(np.arange(len(counts)), counts)[kept]
        self._offset, self._length, self._crc32 = (
            np.array(columns[name], dtype=np.int64)[kept] for name in ("offset", "length", "crc32")
        )
        self.text_style: str = index["text_style"]
        self.utterance_ids: Sequence[str] = [columns["utterance_id"][i] for i in kept]
        self.speaker_ids: Sequence[str] = [columns["speaker_id"][i] for i in kept]
        self.texts: Sequence[str] = [columns["text"][i] for i in kept]
        self.num_samples = np.array(columns["num_samples"], dtype=np.int64)[kept]
        self.sample_rates = np.full(len(kept), SAMPLE_RATE, dtype=np.int32)  # what they were is lost
        self._lock = threading.Lock()
        self._files: dict[int, int] = {}

    def read_waveform(self, index: int) -> np.ndarray:
        """See `Source`; raises InputError where the bytes are not those that were written."""
        length, offset = int(self._length[index]), int(self._offset[index])
        shard = int(self._shard[index])
        payload = os.pread(self._file(shard), length, offset)
        # TensorFlow checks the record's own CRC-32C in scans only; zlib's runs without the GIL.
        if len(payload) != length or zlib.crc32(payload) != self._crc32[index]:
            raise InputError(
                f"{self._shard_paths[shard]} is damaged at byte {offset}, utterance "
                f"{self.utterance_ids[index]}: delete it and run python -m data.prepare again"
            )
        return _decode(payload)

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """See `Source`."""
        return self.read_waveform(index)[:, np.newaxis], SAMPLE_RATE

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self._shard_paths[shard], os.O_RDONLY)
            return self._files[shard]

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)


def write_tfrecords(
    *,
    utterances: Sequence[Utterance],
    output: str | os.PathLike[str],
    num_shards: int,
    split: str = "",
    text_style: str = "librispeech",
    on_rate_mismatch: str = "resample",
    num_workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Decodes utterances into OUTPUT/NAME-00000-of-00008.tfrecord ... and OUTPUT/index.json.

    Equal input gives equal bytes. A shard appears under its name when complete, the index when all
    are; the same call after an interruption keeps the finished shards. Shards are written in
    parallel by threads: decoding, resampling and writing all release the GIL.

    Args:
        utterances: in the order of the index.
        output: folder, made when absent; holds one corpus.
        num_shards: files to spread over, in order and evenly by count.
        split: name of the corpus, NAME of the shards ("data" where empty).
        text_style: how transcripts are normalized before they are stored.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".
        num_workers: threads; None takes one a processor core.
        progress: show a bar, if stderr is a terminal.

    Returns:
        Whether anything was written; False where `output` was finished before.

    Raises:
        InputError: unreadable audio, a folder that holds another corpus or is being written to, or
            a number of shards that does not fit.
    """
    if not 1 <= num_shards <= len(utterances):
        raise InputError(
            f"num_shards is {num_shards}, wanted 1 to {len(utterances)}, the number of utterances"
        )
    if num_workers is not None and num_workers < 1:
        raise InputError(f"num_workers is {num_workers}, wanted at least 1")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    name = (split or "data").replace("/", "-")
    parts = [list(part) for part in np.array_split(np.arange(len(utterances)), num_shards)]
    with only_writer(folder):
        texts = [normalize_transcript(utterance.text, text_style) for utterance in utterances]
        shards = [
            _Shard(
                path=folder / f"{name}-{number:05d}-of-{num_shards:05d}.tfrecord",
                utterances=[utterances[i] for i in part],
                texts=[texts[i] for i in part],
                on_rate_mismatch=on_rate_mismatch,
            )
            for number, part in enumerate(parts)
        ]
        corpus = {
            "format_version": FORMAT_VERSION,
            "sample_rate": SAMPLE_RATE,
            "split": split,
            "text_style": text_style,
            "fingerprint": _digest([shard.fingerprint for shard in shards]),
        }
        if _is_finished(folder, corpus, shards):
            return False
        written = _write_shards(shards, num_workers or os.cpu_count() or 1, progress)
        index = {
            **corpus,
            "num_utterances": len(utterances),
            "shards": [
                {
                    "name": shard.path.name,
                    "num_bytes": shard.path.stat().st_size,
                    "sha256": digest,
                    "num_utterances": len(shard.texts),
                }
                for shard, (digest, _) in zip(shards, written, strict=True)
            ],
            "columns": {key: [v for _, part in written for v in part[key]] for key in COLUMNS},
        }
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        write_text_atomic(folder / INDEX_NAME, text + "\n")
        for shard in shards:
            shard.note.unlink(missing_ok=True)
    return True


class _Shard:
    """One shard to write, with a note beside it that says from what it was written."""

    def __init__(
        self,
        *,
        path: Path,
        utterances: Sequence[Utterance],
        texts: Sequence[str],
        on_rate_mismatch: str,
    ):
        self.path, self.utterances, self.texts = path, utterances, texts
        self.note = path.with_name(f".{path.name}.json")
        self.source = FileSource(utterances=utterances, on_rate_mismatch=on_rate_mismatch)
        stats = [os.stat(utterance.audio_filepath) for utterance in utterances]
        self.newest = max(stat.st_mtime_ns for stat in stats)
        # Sizes but no times and no folders: a copied corpus gives the same index.
        self.fingerprint = _digest(
            [u.utterance_id, u.speaker_id, text, u.num_samples, u.sample_rate, stat.st_size]
            for u, text, stat in zip(utterances, texts, stats, strict=True)
        )

    def finished(self) -> _Written | None:
        """What an interrupted run left, checked byte for byte; None where it has to be written."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if self.note.stat().st_mtime_ns < self.newest:
                return None
        except (OSError, ValueError):
            return None
        fits = note["fingerprint"] == self.fingerprint and has_size(self.path, note["num_bytes"])
        fits = fits and file_sha256(self.path) == note["sha256"]
        return (note["sha256"], note["columns"]) if fits else None

    def write(self, advance: Callable[[int], None], stop: threading.Event) -> _Written:
        """Writes the shard, then its note; raises what decoding raises."""
        import tensorflow as tf

        finished = self.finished()
        if finished is not None:
            advance(len(self.texts))
            return finished
        self.note.unlink(missing_ok=True)
        columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
        digest = ""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        position = 0
        try:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for i, utterance in enumerate(self.utterances):
                    if stop.is_set():
                        break
                    waveform = self.source.read_waveform(i)
                    ids = {
                        "utterance_id": utterance.utterance_id,
                        "speaker_id": utterance.speaker_id,
                        "text": self.texts[i],
                    }
                    payload = _encode(waveform=waveform, **ids)
                    writer.write(payload)
                    row = {
                        **ids,
                        "num_samples": len(waveform),
                        "offset": position + _HEAD_BYTES,
                        "length": len(payload),
                        "crc32": zlib.crc32(payload),
                    }
                    for key in COLUMNS:
                        columns[key].append(row[key])
                    position += _HEAD_BYTES + len(payload) + _TAIL_BYTES
                    advance(1)
            if not stop.is_set():
                digest = file_sha256(temporary)
                os.replace(temporary, self.path)
                note = {
                    "fingerprint": self.fingerprint,
                    "num_bytes": position,
                    "sha256": digest,
                    "columns": columns,
                }
                write_text_atomic(self.note, json.dumps(note))
        finally:
            temporary.unlink(missing_ok=True)
        return digest, columns


def _write_shards(
    shards: Sequence[_Shard], num_workers: int, progress: bool
) -> list[_Written]:
    """SHA-256 and columns of every shard; the first error stops the others."""
    lock, stop = threading.Lock(), threading.Event()
    total = sum(len(shard.texts) for shard in shards)
    disable = None if progress else True  # None: quiet where stderr is no terminal
    with tqdm(total=total, desc="prepare", unit="utt", disable=disable) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        with ThreadPoolExecutor(num_workers) as pool:
            futures = [pool.submit(shard.write, advance, stop) for shard in shards]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _is_finished(folder: Path, corpus: dict[str, Any], shards: Sequence[_Shard]) -> bool:
    """Whether an earlier run left just this; raises InputError where it left something else."""
    names = {shard.path.name for shard in shards}
    strangers = sorted(p.name for p in folder.glob("*.tfrecord") if p.name not in names)
    index = read_index(folder) if (folder / INDEX_NAME).exists() else None
    if strangers or (index and any(index[key] != corpus[key] for key in corpus)):
        raise InputError(
            f"{folder} holds other shards{f' ({strangers[0]})' if strangers else ''}: "
            "give another --output, or delete it"
        )
    return (
        index is not None
        and (folder / INDEX_NAME).stat().st_mtime_ns >= max(shard.newest for shard in shards)
        and not verify_shards(folder)
    )


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
