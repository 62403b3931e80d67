"""Shards as a source: bytes, random access, damage, speakers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.manifest import read_librispeech
from data.corpus.sources import FileSource
from data.corpus.utterance import Utterance
from data.shards.preparation import write_tfrecords
from data.shards.records import feature_spec
from data.shards.source import TFRecordSource
from tests.helpers.data_toys import contents, make_utterances

CORPORA = Path(__file__).parents[4] / "shared" / "corpora"


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    return make_utterances(tmp_path / "audio")


def test_every_utterance_comes_back_bit_for_bit(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=3, split="dev", num_workers=1)
    assert sorted(contents(tmp_path / "out")) == [
        "dev-00000-of-00003.tfrecord",
        "dev-00001-of-00003.tfrecord",
        "dev-00002-of-00003.tfrecord",
        "index.json",
    ]
    source, files = TFRecordSource(input=tmp_path / "out"), FileSource(utterances=utterances)
    assert list(source.utterance_ids) == [u.utterance_id for u in utterances]
    assert list(source.speaker_ids) == [u.speaker_id for u in utterances]
    assert list(source.texts)[:3] == ["WORD 'S", "WORD X'S", "WORD XX'S"]
    np.testing.assert_array_equal(source.num_samples, files.num_samples)
    # Backwards: no record depends on the one before it.
    for index in reversed(range(len(utterances))):
        np.testing.assert_array_equal(source.read_waveform(index), files.read_waveform(index))


def test_threads_read_what_one_reads(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2, num_workers=1)
    source = TFRecordSource(input=tmp_path / "out")
    alone = [source.read_waveform(index) for index in range(7)]
    with ThreadPoolExecutor(4) as pool:
        for index, waveform in zip([*range(7)] * 30, pool.map(source.read_waveform, [*range(7)] * 30), strict=True):
            np.testing.assert_array_equal(waveform, alone[index])


def test_shards_are_ordinary_tfrecords_with_the_spec(tmp_path: Path, utterances: list[Utterance]) -> None:
    import tensorflow as tf

    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=3, num_workers=1)
    paths = sorted(str(path) for path in (tmp_path / "out").glob("*.tfrecord"))
    records = [
        tf.io.parse_single_example(record, feature_spec())
        for record in tf.data.TFRecordDataset(paths)  # checks both CRCs of every record
    ]
    assert [record["utterance_id"].numpy().decode() for record in records] == [u.utterance_id for u in utterances]
    samples = tf.io.decode_raw(records[4]["audio"], tf.int16).numpy()
    expected, _ = soundfile.read(utterances[4].audio_filepath, dtype="int16")
    np.testing.assert_array_equal(samples, expected)
    assert int(records[4]["num_samples"]) == len(expected)
    assert records[4]["text"].numpy().decode() == "WORD XXXX'S"
    assert records[4]["speaker_id"].numpy() == b"s0"


def test_damaged_record_is_named_and_the_others_stay_readable(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1, num_workers=1)
    path = tmp_path / "out" / "data-00000-of-00001.tfrecord"
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    content = bytearray(path.read_bytes())
    content[index["columns"]["offset"][3] + 300] ^= 1
    path.write_bytes(content)
    source = TFRecordSource(input=tmp_path / "out")
    with pytest.raises(InputError, match=r"is damaged at byte \d+, utterance u3"):
        source.read_waveform(3)
    assert len(source.read_waveform(4)) == utterances[4].num_samples


def test_missing_and_cut_shards_are_named_at_once(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2, num_workers=1)
    path = tmp_path / "out" / "data-00001-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord is missing or truncated"):
        TFRecordSource(input=tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord is missing or truncated"):
        TFRecordSource(input=tmp_path / "out")
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2, num_workers=1)
    assert len(TFRecordSource(input=tmp_path / "out").utterance_ids) == 7


def test_split_and_speakers_of_the_source(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "a", num_shards=2, split="dev", num_workers=1)
    whole = TFRecordSource(input=tmp_path / "a", split="dev")
    some = TFRecordSource(input=tmp_path, split="a", speakers=("s1",))
    assert list(some.utterance_ids) == ["u1", "u3", "u5"]
    assert some.num_samples.tolist() == whole.num_samples[[1, 3, 5]].tolist()
    np.testing.assert_array_equal(some.read_waveform(2), whole.read_waveform(5))


@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_real_speech_is_kept_exactly(tmp_path: Path) -> None:
    utterances = read_librispeech(CORPORA / "LibriSpeech", "dev-mini")
    write_tfrecords(utterances=utterances, output=tmp_path, num_shards=2, num_workers=1)
    source, files = TFRecordSource(input=tmp_path), FileSource(utterances=utterances)
    assert list(source.texts) == [u.text for u in utterances]
    for index in range(0, len(utterances), 5):
        np.testing.assert_array_equal(source.read_waveform(index), files.read_waveform(index))
    num_samples = int(source.num_samples.sum())
    size = sum(path.stat().st_size for path in tmp_path.glob("*.tfrecord"))
    assert 0 < size - 2 * num_samples < 500 * len(utterances)
