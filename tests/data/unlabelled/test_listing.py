"""The rows of manifests, shards and folders without transcripts: in order, faults in their place."""

from __future__ import annotations

import json

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
