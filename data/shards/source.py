"""Reads utterances from TFRecord shards in any order, by the offsets in the index.

A record holds audio at 16 kHz (`data.shards.records`) and the normalized transcript. `index.json` holds all texts,
lengths and byte offsets, so that reading utterance 271,000 takes one `pread` or one request instead of a scan.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Collection, Sequence

import numpy as np

from common import storage
from data.audio.decoding import SAMPLE_RATE
from data.common.errors import InputError
from data.corpus.faults import Fault, Report, refuse
from data.corpus.manifest import select_speakers
from data.corpus.slices import decode_fields
from data.corpus.utterance import Fields
from data.shards.index import find_index, has_size, read_index
from data.shards.records import decode_record


class TFRecordSource:
    """A `Source` of the shards that `data.prepare` made.

        source = TFRecordSource(input="shards", split="train-clean-100")
        text, waveform = source.texts[0], source.read_waveform(0)

    Attributes:
        text_normalization: Style of the stored transcripts.
        payload: Encoding of the audio, one of `data.shards.records.PAYLOADS`.
    """

    def __init__(
        self,
        *,
        input: str | os.PathLike[str],
        split: str = "",
        speakers: Collection[str] = (),
        exclude_speakers: Collection[str] = (),
        report: Report = refuse,
    ):
        """Reads the index and checks that every shard exists with its full size.

        Args:
            input: Folder of the shards, or the folder above it; a path or a URL.
            split: Name of the split, found in INPUT/SPLIT or INPUT; "" = the one that INPUT holds.
            speakers: Speakers to keep; empty = all.
            exclude_speakers: Speakers to drop.
            report: Called with each shard that is missing or truncated; its intact part is used when it returns.

        Raises:
            InputError: If there is no index, it has another format version, or `report` raises.
        """
        folder = find_index(input, split)
        index = read_index(folder, whole=True)
        self._shard_paths = []
        for shard in index["shards"]:
            path = storage.join(folder, shard["name"])
            if not has_size(path, shard["num_bytes"]):
                what = f"{path} is missing or truncated: run python -m data.prepare again"
                report(Fault("damaged_shard", what, {shard["name"]: what}))
            self._shard_paths.append(path)
        columns = index["columns"]
        kept = select_speakers(
            columns["speaker_id"],
            speakers=speakers,
            exclude_speakers=exclude_speakers,
            where=folder,
        )
        counts = [shard["num_utterances"] for shard in index["shards"]]
        self._shard = np.repeat(np.arange(len(counts)), counts)[kept]
        self._offset, self._length, self._crc32 = (
            np.array(columns[name], dtype=np.int64)[kept] for name in ("offset", "length", "crc32")
        )
        self.text_normalization: str = index["text_normalization"]
        self.payload: str = index["payload"]
        self.utterance_ids: Sequence[str] = [columns["utterance_id"][i] for i in kept]
        self.speaker_ids: Sequence[str] = [columns["speaker_id"][i] for i in kept]
        self.texts: Sequence[str] = [columns["text"][i] for i in kept]
        self.num_samples = np.array(columns["num_samples"], dtype=np.int64)[kept]
        self.sample_rates = np.full(len(kept), SAMPLE_RATE, dtype=np.int32)  # the original rates are not stored
        self._fields = decode_fields(index.get("fields", {}), kept)
        self._lock = threading.Lock()
        self._files: dict[int, int] = {}

    @property
    def fields(self) -> dict[str, Fields]:
        """Utterance id -> further fields of the manifest that the shards were made of."""
        return {name: fields for name, fields in zip(self.utterance_ids, self._fields, strict=True) if fields}

    def shard_path(self, index: int) -> str:
        """Returns the path of the shard that holds an utterance."""
        return self._shard_paths[int(self._shard[index])]

    def crc32(self, index: int) -> int:
        """Returns the checksum of an utterance's record."""
        return int(self._crc32[index])

    def read_waveform(self, index: int) -> np.ndarray:
        """Returns the samples of an utterance; raises InputError if its record is damaged."""
        length, offset = int(self._length[index]), int(self._offset[index])
        shard = int(self._shard[index])
        path = self._shard_paths[shard]
        if storage.is_remote(path):
            record = storage.read_range(path, offset, length)
        else:
            record = os.pread(self._file(shard), length, offset)
        # TensorFlow checks the CRC-32C of a record only in scans; zlib's CRC runs without the GIL.
        if len(record) != length or zlib.crc32(record) != self._crc32[index]:
            raise InputError(
                f"{path} is damaged at byte {offset}, utterance "
                f"{self.utterance_ids[index]}: run python -m data.prepare again",
                code="damaged_shard",
            )
        return decode_record(record, payload=self.payload, name=self.utterance_ids[index])

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the samples of an utterance at 16 kHz as the one channel of a recording."""
        return self.read_waveform(index)[:, np.newaxis], SAMPLE_RATE

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self._shard_paths[shard], os.O_RDONLY)
            return self._files[shard]

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)
