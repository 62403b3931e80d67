"""Opening a corpus by its format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.manifest import read_utterances
from data.corpus.sources import FileSource
from data.open_corpus import FORMATS, open_source
from data.shards.preparation import write_tfrecords
from data.shards.source import TFRecordSource


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = []
    for name, rate in [("a", 16000), ("b", 8000), ("c", 16000)]:
        soundfile.write(tmp_path / f"{name}.wav", np.linspace(-0.4, 0.4, 1000), rate)
        lines.append({"audio_filepath": f"{name}.wav", "text": f"It's {name}.", "speaker": name})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_raw_files_and_shards_hold_the_same(manifest: Path) -> None:
    raw = open_source(format="jsonl", input=manifest)
    shards = manifest.parent / "shards"
    write_tfrecords(utterances=read_utterances(format="jsonl", input=manifest), output=shards, num_shards=2)
    records = open_source(format="tfrecord", input=shards)
    assert isinstance(raw, FileSource)
    assert isinstance(records, TFRecordSource)
    assert list(records.utterance_ids) == list(raw.utterance_ids) == ["a", "b", "c"]
    assert list(records.speaker_ids) == list(raw.speaker_ids)
    assert list(raw.texts)[0] == "It's a."
    assert list(records.texts)[0] == "IT'S A"
    np.testing.assert_array_equal(records.num_samples, raw.num_samples)
    for index in range(3):
        np.testing.assert_allclose(records.read_waveform(index), raw.read_waveform(index), atol=0.51 / 32768)


@pytest.mark.parametrize("format", ["jsonl", "tfrecord"])
def test_speakers_reach_every_format(manifest: Path, format: str) -> None:
    path = manifest
    if format == "tfrecord":
        path = manifest.parent / "shards"
        write_tfrecords(utterances=read_utterances(format="jsonl", input=manifest), output=path, num_shards=2)
    whole = open_source(format=format, input=path)
    source = open_source(format=format, input=path, exclude_speakers=("b",))
    assert list(source.utterance_ids) == ["a", "c"]
    np.testing.assert_array_equal(source.read_waveform(1), whole.read_waveform(2))
    with pytest.raises(InputError, match="no speaker 'z'"):
        open_source(format=format, input=path, speakers=("z",))


def test_rates_can_be_refused_and_formats_are_checked(manifest: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 3 files do not have 16000 Hz, first .*b\.wav"):
        open_source(format="jsonl", input=manifest, on_rate_mismatch="refuse")
    listed = ("librispeech", "jsonl", "csv", "tsv", "kaldi", "lhotse")
    packed = ("parquet", "arrow", "webdataset", "shar")
    assert ("tfrecord", *listed, *packed) == FORMATS
    with pytest.raises(InputError, match="unknown format 'xml': use one of tfrecord, libri"):
        open_source(format="xml", input=manifest)
