"""Corpora inside other files give the utterances of the JSON-lines manifest, and name each bad row."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import read_utterances
from data.corpus.sources import FileSource
from data.open_corpus import open_source
from tests.helpers.packed_toys import (
    AUDIO,
    Item,
    audio_of,
    make_items,
    write_jsonl,
    write_parquet,
    write_shar,
    write_tar,
)


@pytest.fixture
def items() -> list[Item]:
    return make_items()


@pytest.fixture
def manifest(tmp_path: Path, items: Sequence[Item]) -> FileSource:
    source = open_source(format="jsonl", input=write_jsonl(tmp_path, items))
    assert isinstance(source, FileSource)
    return source


def assert_same(source: Any, wanted: FileSource, *, has_speakers: bool = True) -> None:
    assert list(source.utterance_ids) == list(wanted.utterance_ids)
    assert list(source.texts) == list(wanted.texts)
    assert list(source.speaker_ids) == (list(wanted.speaker_ids) if has_speakers else [""] * len(wanted.texts))
    np.testing.assert_array_equal(source.num_samples, wanted.num_samples)
    np.testing.assert_array_equal(source.sample_rates, wanted.sample_rates)
    for index in range(len(wanted.texts)):
        np.testing.assert_array_equal(source.read_waveform(index), wanted.read_waveform(index))
        np.testing.assert_array_equal(source.read_recording(index)[0], wanted.read_recording(index)[0])


LAYOUTS = {
    "plain": {"text": "text", "speaker": "speaker"},
    "Common Voice": {"sentence": "text", "client_id": "speaker", "path": "name", "up_votes": 2},
    "FLEURS": {"transcription": "text", "raw_transcription": "other", "id": 7, "num_samples": 3, "path": "name"},
    "VoxPopuli": {"normalized_text": "text", "raw_text": "other", "speaker_id": "speaker", "audio_id": "id"},
    "MLS": {"transcript": "text", "speaker_id": "speaker", "id": "id", "begin_time": "9.5", "end_time": "99.5"},
    "People's Speech": {"text": "text", "id": "id", "duration_ms": 100},
    "LibriSpeech": {"text": "text", "speaker_id": "speaker", "id": "id", "file": "/elsewhere/x.flac"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_columns_of_public_corpora_are_known(tmp_path, items, manifest, layout):
    values = {
        "text": [item.text for item in items],
        "other": ["?" for _ in items],
        "speaker": [item.speaker for item in items],
        "name": [item.name for item in items],
        "id": [item.name.partition(".")[0] for item in items],
    }
    columns = {name: values.get(what, [what] * len(items)) for name, what in LAYOUTS[layout].items()}
    for number, part in enumerate((slice(0, 4), slice(4, 7))):
        cells = {name: column[part] for name, column in columns.items()}
        path = tmp_path / f"data/train-{number:05d}-of-00002.parquet"
        write_parquet(path, {"audio": audio_of(items[part]), **cells}, row_group_size=2)
    source = open_source(format="parquet", input=tmp_path, split="train")
    assert_same(source, manifest, has_speakers="speaker" in LAYOUTS[layout].values())


def test_audio_may_be_paths_or_plain_bytes_or_both(tmp_path, items, manifest):
    texts = {"text": [item.text for item in items], "speaker": [item.speaker for item in items]}
    paths = [f"clips/{item.name}" for item in items]
    mixed = [{"bytes": None, "path": path} if number % 2 else {"bytes": items[number].content, "path": path}
             for number, path in enumerate(paths)]  # fmt: skip
    for name, columns in {
        "paths": {"audio": [{"bytes": None, "path": path} for path in paths]},
        "mixed": {"audio": mixed},
        "text": {"audio_filepath": paths},
        "plain": {"wav": [item.content for item in items], "path": paths},
    }.items():
        path = write_parquet(tmp_path / f"{name}.parquet", {**columns, **texts})
        assert_same(open_source(format="parquet", input=path), manifest)


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files_are_read(tmp_path, items, manifest, kind):
    columns = {"text": [item.text for item in items], "speaker": [item.speaker for item in items]}
    table = pa.table({"audio": pa.array(audio_of(items), AUDIO), **columns})
    (tmp_path / "saved").mkdir()
    path = str(tmp_path / "saved/data-00000-of-00001.arrow")
    with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    assert_same(open_source(format="arrow", input=tmp_path / "saved"), manifest)


def test_samples_of_webdataset_are_read(tmp_path, items, manifest):
    for number, part in enumerate((items[:4], items[4:])):
        files: list[tuple[str, bytes]] = []
        for item in part:
            key, _, kind = item.name.partition(".")
            fields = {"speaker": item.speaker} | ({"transcription": item.text} if kind == "wav" else {})
            files += [(item.name.upper().replace("U", "u") if kind == "wav" else item.name, item.content)]
            files += [(f"{key}.json", json.dumps(fields).encode())]
            files += [(f"{key}.txt", f"{item.text}\n".encode())] if kind != "wav" else []
        write_tar(tmp_path / f"tars/train-{number:06d}.tar", files)
    assert_same(open_source(format="webdataset", input=tmp_path / "tars"), manifest)
    pattern = str(tmp_path / "tars/train-{000000..000001}.tar")
    assert_same(open_source(format="webdataset", input=pattern, split="train"), manifest)


def test_keys_that_begin_anew_in_each_tar_get_its_name(tmp_path, items):
    for number in range(2):
        write_tar(tmp_path / f"t{number}.tar", [("000.flac", items[0].content), ("000.txt", b"a")])
    source = open_source(format="webdataset", input=tmp_path)
    assert list(source.utterance_ids) == ["t0/000", "t1/000"]


def test_cuts_of_shar_are_read(tmp_path, items, manifest):
    write_shar(tmp_path / "train", items)
    assert_same(open_source(format="shar", input=tmp_path, split="train"), manifest)


def test_a_cut_with_several_texts_becomes_segments(tmp_path, items):
    spoken = [{"id": "a", "start": 0.0, "duration": 0.4, "text": "A"}, {"id": "b", "start": 0.5, "text": "B"}]
    spoken[1]["duration"] = 0.5
    write_shar(tmp_path, items[:1], {0: {"supervisions": spoken}})
    source = open_source(format="shar", input=tmp_path)
    whole = soundfile.read(io.BytesIO(items[0].content), dtype="float32")[0]
    assert list(source.utterance_ids) == ["a", "b"] and list(source.texts) == ["A", "B"]
    np.testing.assert_array_equal(source.read_waveform(0), whole[:6400])
    np.testing.assert_array_equal(source.read_waveform(1), whole[8000:16000])


def test_a_text_of_one_channel_of_a_cut_hears_that_channel(tmp_path, items):
    buffer = io.BytesIO()
    channels = np.random.default_rng(1).integers(-9000, 9000, (16000, 3)).astype(np.int16)
    soundfile.write(buffer, channels, 16000, format="FLAC")
    item = items[0]._replace(content=buffer.getvalue())
    spoken = [
        {"id": name, "start": 0.0, "duration": 1.0, "text": name, "channel": heard}
        for name, heard in (("a", 4), ("b", [2]), ("c", [2, 4, 7]), ("d", [2, 7]))
    ]
    write_shar(tmp_path, [item], {0: {"type": "MultiCut", "channel": [2, 4, 7], "supervisions": spoken}})
    faults: list[Fault] = []
    source = open_source(format="shar", input=tmp_path, report=faults.append)
    assert list(source.utterance_ids) == ["a", "b", "c"]
    np.testing.assert_array_equal(source.read_waveform(0) * 32768, channels[:, 1])
    np.testing.assert_array_equal(source.read_waveform(1) * 32768, channels[:, 0])
    np.testing.assert_allclose(source.read_waveform(2) * 32768, channels.mean(axis=1), atol=0.01)
    assert [fault.message.partition(" ")[2] for fault in faults] == [
        "has 2 of 3 channels, and one or all are read: write Shar of its mix"
    ]


def faults_of(format: str, path: Path, **fields: Any) -> tuple[list[str], dict[str, str]]:
    """Ids of the good rows, and the code and message of each bad one."""
    faults: list[Fault] = []
    good = read_utterances(format=format, input=path, report=faults.append, **fields)
    for fault in faults:
        assert "\n" not in fault.message
    return [utterance.utterance_id for utterance in good], {fault.message: fault.code for fault in faults}


def test_bad_rows_of_a_table_are_named_and_the_others_read(tmp_path, items):
    audio: list[Any] = audio_of(items)
    audio[1] = None
    audio[3] = {"bytes": b"no audio at all", "path": "x.wav"}
    audio[4] = {"bytes": None, "path": "absent.wav"}
    audio[5] = {"bytes": items[0].content[:-300], "path": "y.flac"}
    texts = [item.text for item in items]
    texts[2] = None
    path = write_parquet(tmp_path / "t.parquet", {"audio": audio, "text": texts, "id": [f"r{i}" for i in range(7)]})
    faults_of_later: list[Fault] = []
    good, faults = faults_of("parquet", path)
    assert good == ["r0", "r5", "r6"]
    starts = {
        f"{path}, row 1 has no audio, add it or leave the row out": "missing_audio",
        f"{path}, row 2 has no text, add it": "missing_transcript",
        f"cannot decode audio file {path}#row=3&column=audio.bytes (no header of": "unreadable_audio",
        f"no audio file {tmp_path}/absent.wav: check the path": "missing_audio",
    }
    for start, code in starts.items():
        assert [kind for message, kind in faults.items() if message.startswith(start)] == [code], faults
    with pytest.raises(InputError, match="row 1 has no audio"):
        open_source(format="parquet", input=path)
    source = open_source(format="parquet", input=path, report=faults_of_later.append)
    with pytest.raises(InputError, match=r"t\.parquet#row=5&column=audio\.bytes"):
        source.read_waveform(1)


def test_bad_samples_of_a_tar_are_named_and_the_others_read(tmp_path, items):
    content = items[0].content
    path = write_tar(
        tmp_path / "t.tar",
        [
            *[("a.flac", content), ("a.txt", b"A")],
            *[("b.txt", b"B"), ("b.png", b"?")],
            *[("c.flac", content), ("c.json", b"{")],
            *[("d.flac", content), ("d.cls", b"1")],
            *[("e.flac", content), ("e.txt", b"\xff\xfe")],
            *[("f.m4a", b"\0\0\0\x20ftypM4A " + bytes(100)), ("f.txt", b"F")],
            *[("g.flac", b"empty"), ("g.txt", b"G")],
            *[("h.flac", content), ("h.txt", b"H")],
        ],
    )
    good, faults = faults_of("webdataset", path)
    assert good == ["a", "h"]
    for start, code in {
        f"{path}, b has no audio but txt, png: add it, or leave the sample out": "missing_audio",
        f"{path}, c.json is not valid JSON": "bad_record",
        f"{path}, d has no text, add it": "missing_transcript",
        f"{path}, e has a .txt that is not UTF-8 text, convert it": "bad_record",
        f"{path}#bytes=": "unreadable_audio",
    }.items():
        assert [kind for message, kind in faults.items() if message.startswith(start)] == [code], faults
    assert any("is MP4" in message and "and write the archive again" in message for message in faults)


def test_bad_cuts_of_shar_are_named_and_the_others_read(tmp_path, items):
    changes: dict[int, dict[str, Any]] = {
        1: {"id": "elsewhere"},
        2: {"type": "MixedCut"},
        3: {"supervisions": [{"start": -0.2, "duration": 0.1, "text": "x"}]},
        4: {"duration": "long"},
        5: {"supervisions": []},
    }
    write_shar(tmp_path, items, changes)
    good, faults = faults_of("shar", tmp_path)
    cuts = tmp_path / "cuts.000000.jsonl.gz"
    assert good == ["u0", "u6"]
    for start, code in {
        f"{cuts}:2 has no recording 'elsewhere' in {tmp_path}/recording.000000.tar": "missing_audio",
        f"{cuts}:3 is a MixedCut": "bad_record",
        f"{cuts}:4 has a text from -0.2 s to -0.1 s in a cut of 0.78": "bad_segment",
        f"{cuts}:5 'duration' is \"long\", not a finite number": "bad_record",
        f"{cuts}:6 has no text, add it": "missing_transcript",
    }.items():
        assert [kind for message, kind in faults.items() if message.startswith(start)] == [code], faults


def test_damaged_files_are_named_and_their_whole_rows_read(tmp_path, items):
    tar = write_tar(tmp_path / "wds/t.tar", [("a.flac", items[0].content), ("a.txt", b"A"), ("b.flac", bytes(9000))])
    tar.write_bytes(tar.read_bytes()[:-15_000])
    good, faults = faults_of("webdataset", tar)
    assert good == ["a"]
    assert set(faults.values()) == {"damaged_shard"} and "is not a whole tar" in next(iter(faults))
    write_shar(tmp_path / "shar", items)
    cuts = tmp_path / "shar/cuts.000000.jsonl.gz"
    cuts.write_bytes(cuts.read_bytes()[:-40])
    good, faults = faults_of("shar", tmp_path / "shar")
    assert good == [f"u{index}" for index in range(len(good))] and good
    assert "damaged_shard" in faults.values()


def test_ids_come_from_the_first_column_whose_values_differ(tmp_path, items):
    two = {"audio": [{"bytes": item.content, "path": None} for item in items[:2]], "text": ["a", "b"]}
    path = write_parquet(tmp_path / "part.parquet", {**two, "id": [5, 5]})
    assert list(open_source(format="parquet", input=path).utterance_ids) == ["part-000000", "part-000001"]
    path = write_parquet(tmp_path / "part.parquet", {**two, "id": [0, 6]})
    assert list(open_source(format="parquet", input=path).utterance_ids) == ["0", "6"]
    path = write_parquet(tmp_path / "part.parquet", {**two, "id": [None, 6]})
    assert list(open_source(format="parquet", input=path).utterance_ids) == ["part-000000", "6"]
    path = write_parquet(tmp_path / "part.parquet", {**two, "utterance_id": ["x", "x"], "id": [5, 6]})
    with pytest.raises(InputError, match="1 utterance ids occur more than once"):
        open_source(format="parquet", input=path)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([2**62, 2], pa.timestamp("us")),  # no date of Python's
    ],
)
@pytest.mark.parametrize("name", ["id", "key", "speaker", "start"])
def test_columns_of_other_types_are_no_ids_or_speakers(tmp_path, items, name, values):
    audio = pa.array(audio_of(items[:2]), AUDIO)
    pq.write_table(pa.table({"audio": audio, "text": ["a", "b"], name: values}), tmp_path / "t.parquet")
    source = open_source(format="parquet", input=tmp_path / "t.parquet")
    assert list(source.utterance_ids) == ["u0", "u1"] and list(source.speaker_ids) == ["", ""]


def test_times_of_a_table_are_numbers(tmp_path, items):
    audio = pa.array(audio_of(items[:2]), AUDIO)
    for values in (pa.array([0, 0], pa.duration("ns")), pa.array([[0.0], [0.0]])):
        pq.write_table(pa.table({"audio": audio, "text": ["a", "b"], "offset": values}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=r"t\.parquet: the column offset holds .*, wanted seconds as numbers"):
            open_source(format="parquet", input=tmp_path / "t.parquet")
    times = pa.array(["0.50", "0.25"]).cast(pa.decimal128(5, 2))
    pq.write_table(pa.table({"audio": audio, "text": ["a", "b"], "offset": times}), tmp_path / "t.parquet")
    source = open_source(format="parquet", input=tmp_path / "t.parquet")
    assert dict(source.segment_starts) == {"u0": 8000, "u1": 5512}


def test_offsets_of_a_table_are_segments_of_its_recordings(tmp_path, items):
    audio = audio_of([items[0], items[0]])
    columns = {"audio": audio, "text": ["a", "b"], "id": ["a", "b"], "offset": [0.0, 0.5], "duration": [0.3, 0.5]}
    source = open_source(format="parquet", input=write_parquet(tmp_path / "t.parquet", columns))
    whole = soundfile.read(io.BytesIO(items[0].content), dtype="float32")[0]
    np.testing.assert_array_equal(source.read_waveform(0), whole[:4800])
    np.testing.assert_array_equal(source.read_waveform(1), whole[8000:])


def test_splits_of_a_column_are_selected(tmp_path, items):
    columns = {"audio": audio_of(items), "text": ["a"] * 7, "split": ["dev", *["train"] * 6]}
    path = write_parquet(tmp_path / "t.parquet", columns)
    assert list(open_source(format="parquet", input=path, split="dev").utterance_ids) == ["u0"]
    with pytest.raises(InputError, match="no split 'test'"):
        open_source(format="parquet", input=path, split="test")


def test_any_column_can_hold_the_text(tmp_path, items, manifest):
    columns = {"audio": audio_of(items), "text": ["?"] * 7, "said": [item.text for item in items]}
    path = write_parquet(tmp_path / "t.parquet", columns)
    assert list(open_source(format="parquet", input=path, text_column="said").texts) == list(manifest.texts)
    with pytest.raises(InputError, match=r"has no column 'heard' with the transcripts: name one .*; it has text, said"):
        open_source(format="parquet", input=path, text_column="heard")
    tar = write_tar(tmp_path / "t.tar", [("a.flac", items[0].content), ("a.txt", b"?"), ("a.json", b'{"said": "A"}')])
    assert list(open_source(format="webdataset", input=tar, text_column="said").texts) == ["A"]


@pytest.mark.parametrize("format", ["tfrecord", "librispeech", "kaldi", "lhotse", "shar"])
def test_a_column_is_refused_where_there_are_none(tmp_path, format):
    (tmp_path / "cuts.000000.jsonl").touch()
    with pytest.raises(InputError, match="leave text_column empty"):
        open_source(format=format, input=tmp_path, text_column="said")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "has no column audio with the bytes or paths of recordings: it has text (string)"),
        ({"audio": [{"bytes": b"x", "path": None}], "label": [1]}, "has no column text, sentence"),
    ],
)
def test_a_table_without_a_column_says_what_it_has(tmp_path, columns, message):
    path = write_parquet(tmp_path / "t.parquet", columns)
    with pytest.raises(InputError) as caught:
        open_source(format="parquet", input=path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_decoded_samples_are_refused_with_the_way_out(tmp_path):
    kind = pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())])
    table = pa.table({"audio": pa.array([{"array": [0.0], "sampling_rate": 16000}], kind), "text": ["a"]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"the column audio holds decoded samples.*cast_column\('audio', Audio"):
        open_source(format="parquet", input=tmp_path / "t.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, items, monkeypatch):
    path = write_parquet(tmp_path / "t.parquet", {"audio": audio_of(items), "text": ["a"] * 7})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"need pyarrow, which is not installed .*: pip install -e '\.\[parquet\]'"):
        open_source(format="parquet", input=path)


def test_a_manifest_may_name_recordings_inside_archives(tmp_path, items, manifest):
    path = write_parquet(tmp_path / "t.parquet", {"audio": audio_of(items), "text": [item.text for item in items]})
    lines = [
        {"audio_filepath": f"{path.name}#row={number}&column=audio.bytes", "text": item.text, "speaker": item.speaker,
         "utterance_id": f"u{number}"}
        for number, item in enumerate(items)
    ]  # fmt: skip
    (tmp_path / "of_rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert_same(open_source(format="jsonl", input=tmp_path / "of_rows.jsonl"), manifest)
