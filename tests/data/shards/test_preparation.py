"""A corpus into shards: the same bytes whoever writes them, interruption, a second run, bad utterances."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.common.errors import InputError
from data.common.files import only_writer
from data.corpus.sources import FileSource
from data.corpus.utterance import Utterance
from data.shards.preparation import write_tfrecords
from data.shards.source import TFRecordSource
from tests.helpers.data_toys import contents, make_utterances


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    return make_utterances(tmp_path / "audio")


def test_other_rates_are_stored_at_16_khz_and_can_be_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8001) * 0.1) * 0.9, 8000)
    utterances = [Utterance("a", str(tmp_path / "a.wav"), "A", 8001, 8000)]
    with pytest.raises(InputError, match="do not have 16000 Hz"):
        write_tfrecords(utterances=utterances, output=tmp_path / "x", num_shards=1, on_rate_mismatch="refuse")
    write_tfrecords(utterances=utterances, output=tmp_path / "y", num_shards=1)
    source = TFRecordSource(input=tmp_path / "y")
    assert source.num_samples.tolist() == [16002]
    expected = FileSource(utterances=utterances).read_waveform(0)
    np.testing.assert_allclose(source.read_waveform(0), expected, atol=0.51 / 32768)


def test_bytes_depend_on_neither_folder_nor_workers(tmp_path: Path) -> None:
    outputs = []
    for name, num_workers in [("one", 1), ("two", 2)]:
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
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1).num_written == 2
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = write_tfrecords(utterances=utterances, output=out, num_shards=2)
    assert (again.num_written, again.num_shards, again.num_utterances) == (0, 2, 7)
    assert again.num_samples == sum(500 + 37 * index for index in range(7))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_changed_audio_is_written_again(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1)
    # Other samples in a file of the same length and size: only its time tells.
    path = Path(utterances[0].audio_filepath)
    size = path.stat().st_size
    samples, _ = soundfile.read(path, dtype="int16")
    soundfile.write(path, samples[::-1], 16000)
    assert path.stat().st_size == size
    index_time = (out / "index.json").stat().st_mtime_ns
    os.utime(path, ns=(index_time + 10**9, index_time + 10**9))
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1).num_written == 1
    waveform = TFRecordSource(input=out).read_waveform(0)
    np.testing.assert_array_equal(waveform, samples[::-1].astype(np.float32) / 32768)


def test_interrupted_run_keeps_its_finished_shards(tmp_path: Path, utterances: list[Utterance]) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_tfrecords(utterances=utterances, output=whole, num_shards=3, num_workers=1)
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
    assert write_tfrecords(utterances=utterances, output=out, num_shards=3).num_written == 1
    again = (out / "data-00000-of-00003.tfrecord").stat()
    assert (again.st_mtime_ns, again.st_ino) == (first.st_mtime_ns, first.st_ino)
    assert contents(out) == contents(whole)


def test_half_written_shard_of_a_killed_run_is_replaced(tmp_path: Path, utterances: list[Utterance]) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_tfrecords(utterances=utterances, output=whole, num_shards=2, num_workers=1)
    out.mkdir()
    (out / ".data-00000-of-00002.tfrecord.77.tmp").write_bytes(b"half")
    (out / "..data-00000-of-00002.tfrecord.json.77.tmp").write_bytes(b"half")
    (out / ".index.json.77.tmp").write_bytes(b"half")
    (out / "data-00001-of-00002.tfrecord").write_bytes(b"cut")
    (out / ".data-00001-of-00002.tfrecord.json").write_text("{")
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1).num_written == 2
    assert contents(out) == contents(whole)


def test_folder_with_another_corpus_is_refused_and_kept(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1)
    before = contents(out)
    for other in (
        {"utterances": utterances[:5], "num_shards": 2},
        {"utterances": utterances, "num_shards": 3},
        {"utterances": utterances, "num_shards": 2, "split": "dev"},
        {"utterances": utterances, "num_shards": 2, "text_normalization": "unicode"},
        {"utterances": utterances, "num_shards": 2, "payload": "flac"},
    ):
        with pytest.raises(InputError, match="holds other shards"):
            write_tfrecords(output=out, **other)
    assert contents(out) == before


def test_second_writer_is_refused(tmp_path: Path, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("data.shards.preparation._ORPHAN_SECS", 0.1)
    with only_writer(tmp_path / "out"), pytest.raises(InputError, match="another process"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1)


@pytest.mark.parametrize("num_shards", [0, -1, 8])
def test_number_of_shards_must_fit(tmp_path: Path, utterances: list[Utterance], num_shards: int) -> None:
    with pytest.raises(InputError, match=f"num_shards is {num_shards}, wanted 1 to 7"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=num_shards)
    with pytest.raises(InputError, match="num_workers is 0"):
        write_tfrecords(utterances=utterances, output=tmp_path / "out", num_shards=1, num_workers=0)


def test_damaged_shard_is_found_by_its_checksum_and_only_that_is_written_again(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=3, num_workers=1)
    before = contents(out)
    path = out / "data-00001-of-00003.tfrecord"
    path.write_bytes(path.read_bytes()[:-9] + b"!" + path.read_bytes()[-8:])  # neither size nor time tells
    kept = (out / "data-00000-of-00003.tfrecord").stat().st_ino
    assert write_tfrecords(utterances=utterances, output=out, num_shards=3).num_written == 1
    assert contents(out) == before
    assert (out / "data-00000-of-00003.tfrecord").stat().st_ino == kept


def test_run_killed_after_the_index_leaves_nothing_behind_in_the_end(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    out = tmp_path / "out"
    write_tfrecords(utterances=utterances, output=out, num_shards=2, num_workers=1)
    before = contents(out)
    (out / ".data-00000-of-00002.tfrecord.json").write_text("{}")
    assert write_tfrecords(utterances=utterances, output=out, num_shards=2).num_written == 0
    assert contents(out) == before


@pytest.mark.parametrize(("shard_mb", "counts"), [(1.0, [7]), (0.0041, [3, 2, 2]), (0.0001, [1] * 7)])
def test_shards_by_size(tmp_path: Path, shard_mb: float, counts: list[int]) -> None:
    # Five records of 1,200 bytes on average and two of 1,500: in all some 9,400.
    utterances = make_utterances(tmp_path / "audio")
    write_tfrecords(utterances=utterances, output=tmp_path / "out", shard_mb=shard_mb, num_workers=1)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [shard["num_utterances"] for shard in index["shards"]] == counts
    largest = max(shard["num_bytes"] for shard in index["shards"])
    assert largest < max(shard_mb * 1e6, 1600) * 1.05


def test_flac_keeps_the_file_and_encodes_what_is_none(tmp_path: Path) -> None:
    utterances = make_utterances(tmp_path / "audio", 2)
    noise = np.random.default_rng(1).integers(-9000, 9000, (4000, 2)).astype(np.int16)
    for name, rate, channels in [("stereo.flac", 16000, 2), ("slow.flac", 8000, 1), ("mono.wav", 16000, 1)]:
        path = tmp_path / "audio" / name
        soundfile.write(path, noise[:, :channels], rate)
        utterances.append(Utterance(path.stem, str(path), "A", 4000, rate))
    for payload in ("flac", "pcm16"):
        made = write_tfrecords(
            utterances=utterances, output=tmp_path / payload, num_shards=2, payload=payload, num_workers=1
        )
        assert made.num_encoded == (3 if payload == "flac" else 5)
    flac, pcm16 = TFRecordSource(input=tmp_path / "flac"), TFRecordSource(input=tmp_path / "pcm16")
    assert (flac.payload, pcm16.payload) == ("flac", "pcm16")
    assert flac.num_samples.tolist() == pcm16.num_samples.tolist() == [500, 537, 4000, 8000, 4000]
    for index in range(5):  # encoding anew loses nothing that 16 bits hold
        np.testing.assert_array_equal(flac.read_waveform(index), pcm16.read_waveform(index))
    shard = (tmp_path / "flac" / "data-00000-of-00002.tfrecord").read_bytes()
    assert shard.count(Path(utterances[0].audio_filepath).read_bytes()) == 1
    assert Path(utterances[2].audio_filepath).read_bytes() not in shard


def spoil(utterances: list[Utterance], *indices: int) -> None:
    for index in indices:
        path = Path(utterances[index].audio_filepath)
        path.write_bytes(b"\0" * path.stat().st_size)


def test_bad_utterances_are_left_out_and_named_up_to_the_limit(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    spoil(utterances, 1, 5)
    faults = {"gone": ("missing_audio", "no audio file gone.flac: check the path")}
    flags = {"utterances": utterances, "output": out, "num_shards": 3, "num_workers": 1, "faults": faults}
    with pytest.raises(InputError, match=r"u1\.flac .*\(bad utterances: 1, allowed by --max_unreadable_ratio: 0\)"):
        write_tfrecords(**flags, max_unreadable_ratio=0.2)  # of 8: 1, which is gone.flac
    with pytest.raises(InputError, match=r"gone\.flac.*\(bad utterances: 1, allowed .*: 0\)"):
        write_tfrecords(**flags)
    made = write_tfrecords(**flags, max_unreadable_ratio=0.375)
    assert sorted(made.skipped) == ["gone", "u1", "u5"]
    assert "u5.flac" in made.skipped["u5"] and made.num_utterances == 5
    index = json.loads((out / "index.json").read_text())
    assert index["skipped"] == {"gone": "missing_audio", "u1": "unreadable_audio", "u5": "unreadable_audio"}
    source = TFRecordSource(input=out)
    assert list(source.utterance_ids) == ["u0", "u2", "u3", "u4", "u6"]
    assert len(source.read_waveform(4)) == utterances[6].num_samples
    again = write_tfrecords(**flags, max_unreadable_ratio=0.375)
    assert again.num_written == 0 and sorted(again.skipped) == ["gone", "u1", "u5"]


def test_limit_holds_over_all_shards_and_finished_ones_stay(tmp_path: Path, utterances: list[Utterance]) -> None:
    out = tmp_path / "out"
    spoil(utterances, 0, 6)
    flags = {"utterances": utterances, "output": out, "num_shards": 3, "num_workers": 1}
    with pytest.raises(InputError, match=r"u0\.flac.*\(bad utterances: 2, allowed by --max_unreadable_ratio: 1\)"):
        write_tfrecords(**flags, max_unreadable_ratio=0.2)
    assert not (out / "index.json").exists()
    assert len(list(out.glob("data-*.tfrecord"))) == 3
    assert write_tfrecords(**flags, max_unreadable_ratio=0.3).num_written == 0
    assert len(TFRecordSource(input=out).utterance_ids) == 5


def test_urls_hold_the_same_bytes_as_folders(tmp_path: Path, utterances: list[Utterance]) -> None:
    """ram:// is TensorFlow's file system in memory: no network, and nothing that pathlib or os could open."""
    remote = []
    for utterance in utterances:
        url = f"ram://bucket/audio/{Path(utterance.audio_filepath).name}"
        storage.make_dirs("ram://bucket/audio")
        storage.write_bytes(url, Path(utterance.audio_filepath).read_bytes())
        remote.append(Utterance(utterance.utterance_id, url, utterance.text, utterance.num_samples, 16000,
                                utterance.speaker_id))  # fmt: skip
    for payload in ("pcm16", "flac"):
        flags = {"num_shards": 3, "num_workers": 1, "payload": payload, "split": "dev"}
        write_tfrecords(utterances=utterances, output=tmp_path / payload, **flags)
        write_tfrecords(utterances=remote, output=f"ram://bucket/{payload}", **flags)
        assert storage.list_names(f"ram://bucket/{payload}") == sorted(contents(tmp_path / payload))
        for name, content in contents(tmp_path / payload).items():
            assert storage.read_bytes(f"ram://bucket/{payload}/{name}") == content
        assert write_tfrecords(utterances=remote, output=f"ram://bucket/{payload}", **flags).num_written == 0
        source = TFRecordSource(input="ram://bucket", split=payload, speakers=["s1"])
        files = FileSource(utterances=utterances)
        np.testing.assert_array_equal(source.read_waveform(2), files.read_waveform(5))
    content = bytearray(storage.read_bytes("ram://bucket/pcm16/dev-00001-of-00003.tfrecord"))
    content[500] ^= 1
    storage.write_bytes("ram://bucket/pcm16/dev-00001-of-00003.tfrecord", bytes(content))
    flags["payload"] = "pcm16"
    assert write_tfrecords(utterances=remote, output="ram://bucket/pcm16", **flags).num_written == 1
    assert storage.read_bytes("ram://bucket/pcm16/dev-00001-of-00003.tfrecord") != bytes(content)


@pytest.mark.parametrize("payload", ["pcm16", "flac"])
def test_files_that_lie_about_their_length_count_as_bad(
    tmp_path: Path, utterances: list[Utterance], payload: str
) -> None:
    flac, wav = Path(utterances[1].audio_filepath), tmp_path / "cut.wav"
    content = bytearray(flac.read_bytes())
    content[21] ^= 0x08  # the length's 36 bits begin in the byte's lower half: 2**35 samples
    flac.write_bytes(content)
    soundfile.write(wav, np.zeros(utterances[2].num_samples * 2, np.int16), 16000)
    wav.write_bytes(wav.read_bytes()[: 44 + 2 * utterances[2].num_samples])
    utterances[2] = dataclasses.replace(utterances[2], audio_filepath=str(wav))
    prepared = write_tfrecords(
        utterances=utterances,
        output=tmp_path / "out",
        num_shards=1,
        payload=payload,
        max_unreadable_ratio=0.5,
        num_workers=1,
    )
    assert set(prepared.skipped) == {utterances[1].utterance_id, utterances[2].utterance_id}
    assert "promises" in prepared.skipped[utterances[1].utterance_id]
    assert "ends early" in prepared.skipped[utterances[2].utterance_id]
