"""The rows of manifests, shards and folders without transcripts: in order, faults in their place."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.manifest import read_jsonl, read_utterances
from data.shards.preparation import write_tfrecords
from data.unlabelled.listing import UnlabelledCorpus, Unusable
from engine.inference.inputs import find_audio


def write_audio(path, secs=0.5, rate=16_000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(secs * rate)), rate)


def open_corpus(*inputs):
    return UnlabelledCorpus(list(map(str, inputs)), find_audio=find_audio, text_normalization="librispeech")


def write_shards(manifest, folder):
    write_tfrecords(utterances=read_jsonl(manifest), output=folder, num_shards=1, num_workers=1, split="dev")
    return folder


def write_lines(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_needs_no_texts_and_its_faults_stay_in_their_place(tmp_path):
    manifest = write_lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav", "speaker": "ann"},
        "not json\n",
        {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.2, "text": "Hello, you!"},
        "\n",
        {"text": "no audio"},
        {"audio_filepath": "b.wav", "utterance_id": "b"},
    )
    corpus = open_corpus(manifest)
    rows = list(corpus)
    assert corpus.count() == len(rows) == 5
    assert [type(row) is Unusable for row in rows] == [False, True, False, True, False]
    assert rows[1].name == f"{manifest}:2" and "is not JSON" in rows[1].reason
    assert (rows[0].utterance_id, rows[0].speaker_id, rows[0].reference) == ("a", "ann", "")
    assert (rows[2].utterance_id, rows[2].reference) == ("a-0000250", "HELLO YOU")


def test_a_table_without_a_column_of_texts_is_read(tmp_path):
    (tmp_path / "m.csv").write_text("path,client_id\na.wav,ann\nb.wav\n", encoding="utf-8")
    corpus = open_corpus(tmp_path / "m.csv")
    rows = list(corpus)
    assert corpus.count() == len(rows) == 2
    assert {type(row) is Unusable for row in rows} == {True, False}
    with pytest.raises(InputError, match="has no column text or sentence"):
        read_utterances(format="csv", input=str(tmp_path / "m.csv"))


def test_a_json_document_is_no_list_of_lines(tmp_path):
    (tmp_path / "m.jsonl").write_text(json.dumps([{"audio_filepath": "a.wav"}]), encoding="utf-8")
    with pytest.raises(InputError, match="is one JSON array; write one object a line"):
        list(open_corpus(tmp_path / "m.jsonl"))


def test_a_line_that_is_no_text_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"audio_filepath": "a.wav"}\n{"audio_filepath": "\xff.wav"}\n')
    first, second = open_corpus(tmp_path / "m.jsonl")
    assert first.utterance_id == "a"
    assert second.name.endswith("m.jsonl:2") and "is not UTF-8" in second.reason


def test_ids_that_repeat_get_a_number(tmp_path):
    for folder in ("x", "y", "z"):
        write_audio(tmp_path / folder / "a.wav")
    ids = [row.utterance_id for row in open_corpus(tmp_path / "x", tmp_path / "y", tmp_path / "z")]
    assert ids == ["a", "a-2", "a-3"]


def test_a_folder_of_audio_and_one_of_shards_are_told_apart(tmp_path):
    for name in ("a", "b"):
        write_audio(tmp_path / f"audio/{name}.wav", seed=ord(name))
    manifest = write_lines(
        tmp_path / "m.jsonl",
        *({"audio_filepath": f"audio/{name}.wav", "text": name, "speaker": "ann"} for name in ("a", "b")),
    )
    write_shards(manifest, tmp_path / "shards")
    corpus = open_corpus(tmp_path / "audio", tmp_path / "shards")
    rows = list(corpus)
    assert corpus.count() == len(rows) == 4
    assert [row.reference for row in rows] == ["", "", "A", "B"]
    assert [row.utterance_id for row in rows] == ["a", "b", "a-2", "b-2"]


def versions(*inputs):
    return {row.name: version for row, version in open_corpus(*inputs).with_versions()}


def test_a_version_changes_with_the_file_and_with_the_line(tmp_path):
    for name in ("a", "b", "c"):
        write_audio(tmp_path / f"{name}.wav", seed=ord(name))
    fields = [{"audio_filepath": f"{name}.wav", "offset": 0.1, "duration": 0.2} for name in ("a", "b", "c", "none")]
    manifest = write_lines(tmp_path / "m.jsonl", *fields, "not json\n")
    before = versions(manifest)
    assert versions(manifest) == before and len(before) == 5
    assert json.loads(json.dumps(before)) == before, "it is kept as JSON"

    def changed():
        now = versions(manifest)
        return [name.rpartition("/")[2] for name in before if now.get(name) != before[name]]

    write_audio(tmp_path / "b.wav", seed=1)
    assert changed() == ["b.wav"]
    for changes in ({"offset": 0.2}, {"duration": 0.3}, {"audio_channel": 0}, {"speaker": "ann"}, {"text": "hello"}):
        write_lines(manifest, fields[0], fields[1], {**fields[2], **changes}, fields[3], "not json\n")
        assert changed() == ["b.wav", "c.wav"], changes
    write_audio(tmp_path / "none.wav")
    write_lines(manifest, *fields, "{}\n")
    assert changed() == ["b.wav", "none.wav", "m.jsonl:5"]


def test_the_version_of_a_record_is_that_of_its_shard_and_of_the_record(tmp_path):
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", seed=ord(name))
    rows = [{"audio_filepath": f"{name}.wav", "text": name} for name in ("a", "b")]
    shards = write_shards(write_lines(tmp_path / "m.jsonl", *rows), tmp_path / "shards")
    before = versions(shards)
    assert versions(shards) == before
    assert len({json.dumps(version["audio"]) for version in before.values()}) == 1
    assert len({version["row"] for version in before.values()}) == 2
    (path,) = shards.glob("*.tfrecord")
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    now = versions(shards)
    assert all(now[name]["audio"] != before[name]["audio"] for name in before)
    assert all(now[name]["row"] == before[name]["row"] for name in before)


def test_the_version_of_a_recording_in_an_archive_is_that_of_the_archive(tmp_path):
    write_audio(tmp_path / "a.wav")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "x.tar").write_bytes(content)
    manifest = write_lines(tmp_path / "m.jsonl", {"audio_filepath": f"x.tar#bytes=0+{len(content)}"})
    (before,) = versions(manifest).values()
    assert before["audio"][0] == len(content)
    (tmp_path / "x.tar").write_bytes(content + b" ")
    (now,) = versions(manifest).values()
    assert now["audio"][0] == len(content) + 1


def test_files_are_asked_for_their_states_before_more_rows_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("data.unlabelled.listing._ROWS_AT_ONCE", 2)
    asked = []
    monkeypatch.setattr("common.storage.states_or_none", lambda files: asked.append(len(files)) or [None] * len(files))
    manifest = write_lines(tmp_path / "m.jsonl", *({"audio_filepath": f"{number}.wav"} for number in range(5)))
    corpus = open_corpus(manifest).with_versions()
    for _ in range(3):
        next(corpus)
    assert asked == [2, 2]
    assert len(list(corpus)) == 2 and asked == [2, 2, 1]
