"""Shards: bytes, random access, damage, interruption, a second run."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.errors import InputError
from data.files import only_writer
from data.manifest import Utterance, read_librispeech
from data.sources import FileSource
from data.tfrecord import TFRecordSource, feature_spec, write_tfrecords

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"


def make_utterances(folder: Path, count: int = 7) -> list[Utterance]:
    """Int16 noise at 16 kHz, at full scale, so that shards keep every bit."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        samples = random.integers(-32768, 32768, 500 + 37 * index).astype(np.int16)
        samples[:2] = [-32768, 32767]
        path = folder / f"u{index}.flac"
        soundfile.write(path, samples, 16000)
        text = f"Word {'x' * index}\u2019s"
        found.append(Utterance(path.stem, str(path), text, len(samples), 16000, f"s{index % 2}"))
    return found


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    return make_utterances(tmp_path / "audio")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_utterance_comes_back_bit_for_bit(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    assert write_tfrecords(
        utterances=utterances, output=tmp_path / "out", num_shards=3, split="dev"
    )
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
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2)
    source = TFRecordSource(input=tmp_path / "out")
    alone = [source.read_waveform(index) for index in range(7)]
    with ThreadPoolExecutor(4) as pool:
        for index, waveform in zip(
            [*range(7)] * 30, pool.map(source.read_waveform, [*range(7)] * 30), strict=True
        ):
            np.testing.assert_array_equal(waveform, alone[index])


def test_shards_are_ordinary_tfrecords_with_the_spec(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    import tensorflow as tf

    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=3)
    paths = sorted(str(path) for path in (tmp_path / "out").glob("*.tfrecord"))
    records = [
        tf.io.parse_single_example(record, feature_spec())
        for record in tf.data.TFRecordDataset(paths)  # checks both CRCs of every record
    ]
    assert [record["utterance_id"].numpy().decode() for record in records] == [
        u.utterance_id for u in utterances
    ]
    samples = tf.io.decode_raw(records[4]["audio"], tf.int16).numpy()
    expected, _ = soundfile.read(utterances[4].audio_filepath, dtype="int16")
    np.testing.assert_array_equal(samples, expected)
    assert int(records[4]["num_samples"]) == len(expected)
    assert records[4]["text"].numpy().decode() == "WORD XXXX'S"
    assert records[4]["speaker_id"].numpy() == b"s0"


def test_other_rates_are_stored_at_16_khz_and_can_be_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8001) * 0.1) * 0.9, 8000)
    utterances = [Utterance("a", str(tmp_path / "a.wav"), "A", 8001, 8000)]
    with pytest.raises(InputError, match="do not have 16000 Hz"):
        write_tfrecords(
            utterances=utterances, output=tmp_path / "x", num_shards=1, on_rate_mismatch="refuse"
        )
    write_tfrecords(utterances=utterances, output=tmp_path / "y", num_shards=1)
    source = TFRecordSource(input=tmp_path / "y")
    assert source.num_samples.tolist() == [16002]
    expected = FileSource(utterances=utterances).read_waveform(0)
    np.testing.assert_allclose(source.read_waveform(0), expected, atol=0.51 / 32768)


def test_bytes_depend_on_neither_folder_nor_workers(tmp_path: Path) -> None:
    outputs = []
    for name, num_workers in [("one", 1), ("two", 3)]:
        utterances = make_utterances(tmp_path / name)
        write_tfrecords(
            utterances=utterances,
            output=tmp_path / f"out-{name}",
            num_shards=3,
            num_workers=num_workers,
        )
        outputs.append(contents(tmp_path / f"out-{name}"))
    assert outputs[0] == outputs[1]


def test_second_run_writes_nothing(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not write_tfrecords(utterances=utterances, output=out, num_shards=2)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_changed_audio_is_written_again(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=2)
    # Other samples in a file of the same length and size: only its time tells.
    path = Path(utterances[0].audio_filepath)
    size = path.stat().st_size
    samples, _ = soundfile.read(path, dtype="int16")
    soundfile.write(path, samples[::-1], 16000)
    assert path.stat().st_size == size
    index_time = (out / "index.json").stat().st_mtime_ns
    os.utime(path, ns=(index_time + 10**9, index_time + 10**9))
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2)
    waveform = TFRecordSource(input=out).read_waveform(0)
    np.testing.assert_array_equal(waveform, samples[::-1].astype(np.float32) / 32768)


def test_interrupted_run_keeps_its_finished_shards(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_tfrecords(utterances=utterances, output=whole, num_shards=3)
    spare = tmp_path / "spare.flac"
    broken = Path(utterances[6].audio_filepath)  # in the last shard
    shutil.copy2(broken, spare)
    size = broken.stat().st_size
    broken.write_bytes(b"\0" * size)
    with pytest.raises(InputError, match=r"cannot decode audio file .*u6\.flac"):
        write_tfrecords(utterances=utterances, output=out, num_shards=3, num_workers=1)
    assert not (out / "index.json").exists()
    with pytest.raises(InputError, match=r"no .*index\.json"):
        TFRecordSource(input=out)
    left = {path.name for path in out.glob("*.tfrecord")}
    assert left == {"data-00000-of-00003.tfrecord", "data-00001-of-00003.tfrecord"}
    assert not list(out.glob(".*.tmp"))
    first = (out / "data-00000-of-00003.tfrecord").stat()
    shutil.copy2(spare, broken)
    assert write_tfrecords(utterances=utterances, output=out, num_shards=3)
    again = (out / "data-00000-of-00003.tfrecord").stat()
    assert (again.st_mtime_ns, again.st_ino) == (first.st_mtime_ns, first.st_ino)
    assert contents(out) == contents(whole)


def test_half_written_shard_of_a_killed_run_is_replaced(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_tfrecords(utterances=utterances, output=whole, num_shards=2)
    out.mkdir()
    (out / ".data-00000-of-00002.tfrecord.tmp").write_bytes(b"half")
    (out / "data-00001-of-00002.tfrecord").write_bytes(b"cut")
    (out / ".data-00001-of-00002.tfrecord.json").write_text("{")
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2)
    assert contents(out) == contents(whole)


def test_folder_with_another_corpus_is_refused_and_kept(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=2)
    before = contents(out)
    for other in (
        {"utterances": utterances[:5], "num_shards": 2},
        {"utterances": utterances, "num_shards": 3},
        {"utterances": utterances, "num_shards": 2, "split": "dev"},
        {"utterances": utterances, "num_shards": 2, "text_style": "unicode"},
    ):
        with pytest.raises(InputError, match="holds other shards"):
            write_tfrecords(output=out, **other)
    assert contents(out) == before


def test_second_writer_is_refused(tmp_path: Path, utterances: list[Utterance]) -> None:
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out"), pytest.raises(InputError, match="another process"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1)


@pytest.mark.parametrize("num_shards", [0, -1, 8])
def test_number_of_shards_must_fit(
    tmp_path: Path, utterances: list[Utterance], num_shards: int
) -> None:
    with pytest.raises(InputError, match=f"num_shards is {num_shards}, wanted 1 to 7"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=num_shards)
    with pytest.raises(InputError, match="num_workers is 0"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1, num_workers=0)


def test_damaged_record_is_named_and_the_others_stay_readable(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1)
    path = tmp_path / "out" / "data-00000-of-00001.tfrecord"
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    content = bytearray(path.read_bytes())
    content[index["columns"]["offset"][3] + 300] ^= 1
    path.write_bytes(content)
    source = TFRecordSource(input=tmp_path / "out")
    with pytest.raises(InputError, match=r"is damaged at byte \d+, utterance u3"):
        source.read_waveform(3)
    assert len(source.read_waveform(4)) == utterances[4].num_samples


def test_missing_and_cut_shards_are_named_at_once(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2)
    path = tmp_path / "out" / "data-00001-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord is missing or cut"):
        TFRecordSource(input=tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord is missing or cut"):
        TFRecordSource(input=tmp_path / "out")
    assert write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=2)
    assert len(TFRecordSource(input=tmp_path / "out").utterance_ids) == 7


def test_split_and_speakers_of_the_source(tmp_path: Path, utterances: list[Utterance]) -> None:
    write_tfrecords(utterances=utterances, output=tmp_path / "a", num_shards=2, split="dev")
    whole = TFRecordSource(input=tmp_path / "a", split="dev")
    some = TFRecordSource(input=tmp_path, split="a", speakers=("s1",))
    assert list(some.utterance_ids) == ["u1", "u3", "u5"]
    assert some.num_samples.tolist() == whole.num_samples[[1, 3, 5]].tolist()
    np.testing.assert_array_equal(some.read_waveform(2), whole.read_waveform(5))


@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_real_speech_is_kept_exactly(tmp_path: Path) -> None:
    utterances = read_librispeech(CORPORA / "LibriSpeech", "dev-mini")
    write_tfrecords(utterances=utterances, output=tmp_path, num_shards=2)
    source, files = TFRecordSource(input=tmp_path), FileSource(utterances=utterances)
    assert list(source.texts) == [u.text for u in utterances]
    for index in range(0, len(utterances), 5):
        np.testing.assert_array_equal(source.read_waveform(index), files.read_waveform(index))
    num_samples = int(source.num_samples.sum())
    size = sum(path.stat().st_size for path in tmp_path.glob("*.tfrecord"))
    assert 0 < size - 2 * num_samples < 500 * len(utterances)
