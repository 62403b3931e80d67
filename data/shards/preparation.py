"""Writes a corpus as shards with an index: divides it, skips finished shards and joins the parts of the index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from common import storage
from data.archives.address import archive_of
from data.audio.decoding import SAMPLE_RATE, resampled_length
from data.common.errors import InputError
from data.common.files import Lock, only_writer, write_text_atomic
from data.corpus.faults import Fault
from data.corpus.slices import encode_fields
from data.corpus.sources import FileSource
from data.corpus.utterance import Utterance, suffix
from data.shards.index import COLUMNS, FORMAT_VERSION, INDEX_NAME, read_index
from data.shards.local_runner import LocalRunner
from data.shards.records import PAYLOADS
from data.shards.writer import ShardTask, digest, is_intact, read_note, too_many_bad
from data.text.normalization import normalize_transcript

SHARD_MB = 128.0  # large enough to list few, small enough to read in parallel from object stores
_RECORD_BYTES = 120  # approximate size of the feature names, lengths and checksums of a record
_FLAC_RATIO = 0.6  # approximate size of FLAC relative to 16-bit samples
_ORPHAN_SECS = 5.0  # time for the workers of a killed process to end


class Runner(Protocol):
    """Writes shards; see `data.shards.local_runner.LocalRunner` and `data.shards.beam_runner.BeamRunner`."""

    def __call__(self, tasks: Sequence[ShardTask], *, folder: str, lock: Lock, bar: tqdm, max_bad: int) -> None:
        """Writes every shard and its note."""


class Prepared(NamedTuple):
    """Content of a folder of shards.

    Attributes:
        num_shards: Number of shards.
        num_utterances: Number of utterances.
        num_samples: Samples of all utterances at 16 kHz.
        num_encoded: Utterances whose audio was re-encoded.
        num_written: Shards that this call wrote; 0 if all were finished before.
        skipped: Id of each utterance that was left out -> reason.
    """

    num_shards: int
    num_utterances: int
    num_samples: int
    num_encoded: int
    num_written: int
    skipped: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Options that decide the content of shards.

    Attributes:
        num_shards: Number of shards, evenly filled by count; None = by `shard_mb`.
        shard_mb: Approximate size of a shard in 10^6 bytes.
        split: Name of the split and of the shards ("data" if empty).
        text_normalization: Style of `normalize_transcript` for the stored transcripts.
        payload: One of `data.shards.records.PAYLOADS`.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".

    Raises:
        InputError: If the payload is unknown.
    """

    num_shards: int | None = None
    shard_mb: float = SHARD_MB
    split: str = ""
    text_normalization: str = "librispeech"
    payload: str = "pcm16"
    on_rate_mismatch: str = "resample"

    def __post_init__(self) -> None:
        if self.payload not in PAYLOADS:
            raise InputError(f"unknown payload {self.payload!r}: use one of {', '.join(PAYLOADS)}")


def write_tfrecords(
    *,
    utterances: Sequence[Utterance],
    output: str | os.PathLike[str],
    faults: Mapping[str, tuple[str, str]] | None = None,
    max_unreadable_ratio: float = 0.0,
    num_workers: int | None = None,
    runner: Runner | None = None,
    progress: bool = True,
    **fields: Any,
) -> Prepared:
    """Writes OUTPUT/NAME-00000-of-00008.tfrecord ... and OUTPUT/index.json.

    Equal input gives equal bytes on every runner. A shard gets its name when it is complete, and the index is written
    when all shards are. After an interruption the same call keeps the finished shards whose checksums are right. Memory
    holds the list of utterances but no audio.

        utterances = read_utterances(format="jsonl", input="train.jsonl")
        prepared = write_tfrecords(utterances=utterances, output="shards/train", text_normalization="unicode")

    Args:
        utterances: Utterances in the order of the index.
        output: Folder or URL for one corpus, made if absent.
        faults: Bad utterances that `utterances` does not contain -> (code, message).
        max_unreadable_ratio: Largest ratio of bad utterances to leave out.
        num_workers: Number of processes; None = one per processor core.
        runner: Runner to use instead of processes on this machine.
        progress: Whether to show a progress bar if stderr is a terminal.
        **fields: Fields of `ShardOptions`.

    Raises:
        InputError: If too many utterances are bad, the folder holds another corpus or has another writer, or the number
            of shards is wrong.
        OSError: If the output cannot be written.
    """
    options = ShardOptions(**fields)
    run = runner or LocalRunner(num_workers=num_workers)
    skipped: dict[str, Any] = {name: list(why) for name, why in (faults or {}).items()}
    max_bad = int(max_unreadable_ratio * (len(utterances) + len(skipped)))
    utterances = _usable(utterances, options.on_rate_mismatch, skipped)
    if len(skipped) > max_bad:
        raise too_many_bad(skipped, max_bad)
    folder = os.fspath(output)
    _make_folder(folder)
    disable = None if progress else True  # tqdm's None disables the bar if stderr is not a terminal
    with only_writer(folder, wait_secs=_ORPHAN_SECS) as lock:
        tasks = _divide(utterances, folder, options, max_bad=max_bad - len(skipped))
        corpus = {
            "format_version": FORMAT_VERSION,
            "sample_rate": SAMPLE_RATE,
            "split": options.split,
            "text_normalization": options.text_normalization,
            "payload": options.payload,
            "fingerprint": digest([*(task.fingerprint for task in tasks), sorted(skipped)]),
        }
        index = _read_own_index(folder, corpus, tasks)
        finished = _find_finished(tasks, index, disable)
        pending = [task for task in tasks if task.name not in finished]
        if pending or index is None or index.get("fields", {}) != _fields_of(tasks, index["columns"]):
            _sweep(folder, ".tmp")
            done = len(utterances) - sum(len(task.utterances) for task in pending)
            with tqdm(desc="prepare", total=len(utterances), initial=done, unit="utt", disable=disable) as bar:
                if pending:
                    run(pending, folder=folder, lock=lock, bar=bar, max_bad=max_bad - len(skipped))
            index = _write_index(folder, corpus, tasks, index, skipped, max_bad)
        _sweep(folder, ".json", ".tmp")
    return _summarize(index, num_written=len(pending), skipped=skipped)


def _summarize(index: Mapping[str, Any], *, num_written: int, skipped: Mapping[str, Any]) -> Prepared:
    messages = {name: message for name, (_, message) in skipped.items()}
    return Prepared(
        num_shards=len(index["shards"]),
        num_utterances=len(index["columns"]["utterance_id"]),
        num_samples=sum(index["columns"]["num_samples"]),
        num_encoded=sum(shard["num_encoded"] for shard in index["shards"]),
        num_written=num_written,
        skipped={name: messages.get(name, code) for name, code in index["skipped"].items()},
    )


def _usable(utterances: Sequence[Utterance], on_rate_mismatch: str, skipped: dict[str, list[str]]) -> list[Utterance]:
    """Returns the utterances that a `FileSource` accepts, and adds the others to `skipped`."""

    def skip(fault: Fault) -> None:
        for number, (name, what) in enumerate(fault.details.items()):
            skipped[name] = [fault.code, f"{name}: {what}" if number else fault.message]

    kept = set(FileSource(utterances=utterances, on_rate_mismatch=on_rate_mismatch, report=skip).utterance_ids)
    return [utterance for utterance in utterances if utterance.utterance_id in kept]


def _divide(utterances: Sequence[Utterance], folder: str, options: ShardOptions, *, max_bad: int) -> list[ShardTask]:
    """Divides a corpus into shards; the result depends only on the corpus, so that all machines make the same."""
    count, num_shards, shard_mb, payload = len(utterances), options.num_shards, options.shard_mb, options.payload
    if num_shards is not None and not 1 <= num_shards <= count:
        raise InputError(f"num_shards is {num_shards}, wanted 1 to {count}, the number of utterances")
    if shard_mb <= 0:
        raise InputError(f"shard_mb is {shard_mb}, wanted more than 0")
    texts = [normalize_transcript(utterance.text, options.text_normalization) for utterance in utterances]
    states = _states([archive_of(u.audio_filepath) for u in utterances])
    if num_shards is None:
        sizes = _estimate_bytes(utterances, texts, states[:, 0], payload)
        parts = np.split(np.arange(count), 1 + np.flatnonzero(np.diff(_bins(sizes, shard_mb * 1e6))))
    else:
        parts = np.array_split(np.arange(count), num_shards)
    name = (options.split or "data").replace("/", "-")
    tasks = []
    for number, part in enumerate(parts):
        chosen = slice(int(part[0]), int(part[-1]) + 1)
        # Sizes without times and folders, so that a copied corpus gives the same index.
        rows = [
            [u.utterance_id, u.speaker_id, text, u.num_samples, u.sample_rate, num_bytes]
            + [u.start] * (u.start is not None)
            + [f"channel {u.channel}"] * (u.channel is not None)
            for u, text, num_bytes in zip(utterances[chosen], texts[chosen], states[chosen, 0].tolist(), strict=True)
        ]
        tasks.append(
            ShardTask(
                path=storage.join(folder, f"{name}-{number:05d}-of-{len(parts):05d}.tfrecord"),
                utterances=utterances[chosen],
                texts=texts[chosen],
                payload=payload,
                on_rate_mismatch=options.on_rate_mismatch,
                max_bad=max_bad,
                fingerprint=digest([FORMAT_VERSION, payload, rows]),
                newest_ns=int(states[chosen, 1].max()),
            )
        )
    return tasks


def _states(paths: Sequence[str]) -> np.ndarray:
    """Returns the size and time of each file, int64 [N, 2]; zeros for a missing one, which reading it will report."""
    files = list(dict.fromkeys(paths))  # an archive holds many recordings
    try:
        found: list[storage.FileState] = storage.states(files)
    except OSError:
        found = []
        for path in files:
            try:
                found.append(storage.state(path))
            except OSError:
                found.append(storage.FileState(0, 0))
    state_of = dict(zip(files, found, strict=True))
    return np.array([state_of[path] for path in paths], dtype=np.int64).reshape(len(paths), 2)


def _estimate_bytes(
    utterances: Sequence[Utterance], texts: Sequence[str], file_bytes: np.ndarray, payload: str
) -> np.ndarray:
    """Estimates the sizes of the records, precisely enough to divide a corpus."""
    lengths = [resampled_length(u.num_samples, u.sample_rate, SAMPLE_RATE) for u in utterances]
    audio = 2.0 * np.array(lengths, dtype=np.float64)
    if payload == "flac":
        is_flac = np.array(
            [u.start is None and u.channel is None and suffix(u.audio_filepath) == ".flac" for u in utterances], bool
        )
        audio = np.where(is_flac, file_bytes, _FLAC_RATIO * audio)
    return audio + np.array([len(text.encode()) for text in texts]) + _RECORD_BYTES


def _bins(sizes: np.ndarray, most: float) -> np.ndarray:
    """Returns the bin of each item, in order, such that the bins are as few as the sum allows and equally full."""
    num_bins = max(1, int(np.ceil(sizes.sum() / most)))
    middles = np.cumsum(sizes) - sizes / 2
    return np.floor(middles / sizes.sum() * num_bins)


def _read_own_index(folder: str, corpus: Mapping[str, Any], tasks: Sequence[ShardTask]) -> dict[str, Any] | None:
    """Returns the index of an earlier run over the same corpus, if there is one.

    Raises:
        InputError: If the folder holds something else.
    """
    present = storage.list_names(folder)
    strangers = {name for name in present if name.endswith(".tfrecord")} - {task.name for task in tasks}
    index = read_index(folder, whole=True) if INDEX_NAME in present else None
    if strangers or (index and {key: index[key] for key in corpus} != corpus):
        example = f" ({min(strangers)})" if strangers else ""
        raise InputError(f"{folder} holds other shards{example}: give another --output, or delete it")
    return index


def _find_finished(tasks: Sequence[ShardTask], index: Mapping[str, Any] | None, disable: bool | None) -> set[str]:
    """Returns the names of the shards that an earlier run finished, verified by checksum."""
    listed = {shard["name"]: shard for shard in index["shards"]} if index else {}
    index_ns = storage.state(storage.join(os.path.dirname(tasks[0].path), INDEX_NAME)).mtime_ns if index else 0

    def is_finished(task: ShardTask) -> bool:
        # Only the time of a file shows that its samples changed while its size did not.
        note: Any = read_note(task)
        if note is not None:
            is_current = task.newest_ns <= storage.state(task.note_path).mtime_ns
        else:
            note, is_current = listed.get(task.name), task.newest_ns <= index_ns
        return is_current and bool(note) and "sha256" in note and is_intact(task, note["num_bytes"], note["sha256"])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # hashing releases the GIL
        answers = tqdm(
            pool.map(is_finished, tasks), desc="checksums", total=len(tasks), unit="shard", delay=2.0, disable=disable
        )
        return {task.name for task, answer in zip(tasks, answers, strict=True) if answer}


def _write_index(
    folder: str,
    corpus: Mapping[str, Any],
    tasks: Sequence[ShardTask],
    index: Mapping[str, Any] | None,
    skipped: dict[str, Any],
    max_bad: int,
) -> dict[str, Any]:
    """Writes the index of all shards, and adds their bad utterances to `skipped`."""
    shards, columns = _join_shards(tasks, index, skipped)
    if len(skipped) > max_bad:
        raise too_many_bad(skipped, max_bad)
    if not columns["utterance_id"]:
        raise InputError("no utterance is left to write: check the corpus")
    made = {
        **corpus,
        "num_utterances": len(columns["utterance_id"]),
        "skipped": {name: code for name, (code, _) in sorted(skipped.items())},
        "shards": shards,
        "columns": columns,
    }
    if fields := _fields_of(tasks, columns):
        made["fields"] = fields
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    write_text_atomic(storage.join(folder, INDEX_NAME), text + "\n")
    return made


def _fields_of(tasks: Sequence[ShardTask], columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Returns the further fields of the manifest for the utterances of an index; {} if it has none."""
    known = {one.utterance_id: one.fields for task in tasks for one in task.utterances if one.fields}
    return encode_fields([known.get(name, ()) for name in columns["utterance_id"]]) if known else {}


def _join_shards(
    tasks: Sequence[ShardTask], index: Mapping[str, Any] | None, skipped: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Joins the notes of the shards, and the parts of the earlier index for shards without a note."""
    earlier = _parts_of(index) if index else {}
    shards: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
    for task in tasks:
        note = read_note(task)
        if note is not None:
            shard, part = _part_of_note(task, note)
            skipped.update(note["skipped"])
        elif index is not None and task.name in earlier:
            shard, part = earlier[task.name]
            skipped.update(_skipped_before(task, index["skipped"]))
        else:
            raise InputError(f"{task.path} was not written: run the same command again")
        shards.append(shard)
        for key in COLUMNS:
            columns[key] += part[key]
    return shards, columns


def _skipped_before(task: ShardTask, codes: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the utterances of a shard that an earlier index skipped, as a note lists them."""
    names = [utterance.utterance_id for utterance in task.utterances if utterance.utterance_id in codes]
    return {name: [codes[name], codes[name]] for name in names}


def _part_of_note(task: ShardTask, note: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns the entry and the columns of a shard for the index, from its note."""
    columns = note["columns"]
    shard = {"name": task.name, "num_utterances": len(columns["utterance_id"])}
    return {**shard, **{key: note[key] for key in ("num_bytes", "sha256", "num_encoded")}}, columns


def _parts_of(index: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, list[Any]]]]:
    """Returns the entry and the columns of each shard in an index, by name."""
    parts = {}
    ends = accumulate(shard["num_utterances"] for shard in index["shards"])
    for shard, end in zip(index["shards"], ends, strict=True):
        columns = {key: index["columns"][key][end - shard["num_utterances"] : end] for key in COLUMNS}
        parts[shard["name"]] = (shard, columns)
    return parts


def _make_folder(folder: str) -> None:
    try:
        storage.make_dirs(folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}): choose another --output") from error


def _sweep(folder: str, *suffixes: str) -> None:
    """Removes our hidden files: notes, and unfinished files of runs that were killed."""
    for name in storage.list_names(folder):
        if name.startswith(".") and (".tfrecord" in name or INDEX_NAME in name) and name.endswith(suffixes):
            storage.remove(storage.join(folder, name))
