"""Writes small corpora inside archives, as the libraries that made their formats do."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = ("flac", "wav", "ogg")


class Item(NamedTuple):
    """A recording of a toy corpus: its file and its content, what is said and who says it."""

    name: str
    content: bytes
    text: str
    speaker: str


def make_items(count: int = 7, secs: float = 1.0) -> list[Item]:
    """Noise of about so many seconds at two rates, in three formats."""
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        samples = random.integers(-9000, 9000, round(16000 * secs) + 400 * index).astype(np.int16)
        soundfile.write(buffer, samples, (16000, 22050)[index % 2], format=KINDS[index % 3].upper())
        found.append(Item(f"u{index}.{KINDS[index % 3]}", buffer.getvalue(), f"Word {index}.", f"s{index % 2}"))
    return found


def write_jsonl(folder: Path, items: Sequence[Item]) -> Path:
    """Files beside a manifest: what the same corpus in an archive must equal."""
    (folder / "clips").mkdir(parents=True)
    for item in items:
        (folder / "clips" / item.name).write_bytes(item.content)
    lines = [{"audio_filepath": f"clips/{item.name}", "text": item.text, "speaker": item.speaker} for item in items]
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def audio_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The cells of a column of audio as the `datasets` library writes them."""
    return [{"bytes": item.content, "path": item.name} for item in items]


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], **options: Any) -> Path:
    """A Parquet file of these columns; the column `audio` holds structures of bytes and path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        name: pa.array(values, AUDIO) if name == "audio" else pa.array(values) for name, values in columns.items()
    }
    pq.write_table(pa.table(fields), path, **options)
    return path


def write_tar(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    """A tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shar(folder: Path, items: Sequence[Item], changes: Mapping[int, Mapping[str, Any]] | None = None) -> None:
    """Lhotse Shar of one cut for each item; `changes` replaces fields of cuts, by number."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, files = [], []
    for number, item in enumerate(items):
        key = item.name.partition(".")[0]
        secs = soundfile.info(io.BytesIO(item.content)).duration
        spoken = {"id": f"s{key}", "start": 0.0, "duration": secs, "text": item.text, "speaker": item.speaker}
        cut = {"id": key, "start": 3.5, "duration": secs, "supervisions": [spoken], "type": "MonoCut"}
        lines.append(json.dumps({**cut, **(changes or {}).get(number, {})}))
        files += [(item.name, item.content), (f"{key}.json", b"{}")]
    (folder / "cuts.000000.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    write_tar(folder / "recording.000000.tar", files)


def write_all(folder: Path, items: Sequence[Item]) -> dict[str, Path]:
    """The same corpus in every format that holds recordings, {format: input}; "jsonl" is the one of plain files."""
    columns = {"text": [item.text for item in items], "speaker": [item.speaker for item in items]}
    write_parquet(folder / "hub/train.parquet", {"audio": audio_of(items), **columns}, row_group_size=3)
    table = pa.table({"audio": pa.array(audio_of(items), AUDIO), **columns})
    (folder / "saved").mkdir()
    with pa.ipc.new_stream(str(folder / "saved/data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    files = [
        file
        for item in items
        for key, kind in [item.name.split(".")]
        for file in (
            (f"{key}.{kind}", item.content),
            (f"{key}.json", json.dumps({"text": item.text, "speaker": item.speaker}).encode()),
        )
    ]
    write_tar(folder / "tars/train-000000.tar", files)
    write_shar(folder / "shar", items)
    return {
        "jsonl": write_jsonl(folder / "files", items),
        "parquet": folder / "hub",
        "arrow": folder / "saved",
        "webdataset": folder / "tars",
        "shar": folder / "shar",
    }
