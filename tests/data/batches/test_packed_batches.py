"""A corpus inside archives is trained on, packed and examined exactly as the same files beside a manifest."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from data import prepare, vocab
from data.doctor.examine import DatasetSpec, examine
from data.open_corpus import open_source
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.data_toys import contents, eval_data, train_data
from tests.helpers.packed_toys import audio_of, make_items, write_all, write_parquet

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)
FORMATS = ("parquet", "arrow", "webdataset", "shar")
CONTEXT = tf.distribute.InputContext()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    found = write_all(tmp_path_factory.mktemp("packed"), make_items(9))
    return {format: str(path) for format, path in found.items()}


def make_train(format, input, **fields):
    options = {"global_batch_size": 2, "seed": 3, "tokenizer": TOKENIZER, "text_normalization": "librispeech"}
    return train_data(format=format, input=input, speed_factors=(0.9, 1.0, 1.1), **{**options, **fields})


def batches_of(data, start, count):
    return [{k: v.numpy() for k, v in batch.items()} for batch in data.dataset(CONTEXT, start).take(count)]


@pytest.mark.parametrize("format", FORMATS)
def test_training_resumes_anywhere_with_the_batches_of_the_manifest(inputs, format):
    wanted = batches_of(make_train("jsonl", inputs["jsonl"]), 0, 8)
    for start in (0, 6):
        found = batches_of(make_train(format, inputs[format]), start, 8 - start)
        for one, other in zip(found, wanted[start:], strict=True):
            for name, value in other.items():
                np.testing.assert_array_equal(one[name], value)


@pytest.mark.parametrize("format", FORMATS)
def test_the_identity_of_the_corpus_is_that_of_the_manifest(inputs, format):
    assert make_train(format, inputs[format]).fingerprint == make_train("jsonl", inputs["jsonl"]).fingerprint


@pytest.mark.parametrize("format", FORMATS)
def test_shards_and_vocabulary_are_those_of_the_manifest(inputs, format, tmp_path, capsys):
    for name in ("jsonl", format):
        out = tmp_path / name
        argv = [f"--format={name}", f"--input={inputs[name]}", "--text_normalization=unicode"]
        packing = [*argv, f"--output={out}", "--num_shards=2", "--num_workers=1", "--payload=flac"]
        assert prepare.main(packing) == 0
        assert vocab.main([*argv, f"--output={tmp_path}/{name}.json"]) == 0
        assert prepare.main(packing) == 0
        assert "(finished before)" in capsys.readouterr().out
    assert (tmp_path / "jsonl.json").read_bytes() == (tmp_path / f"{format}.json").read_bytes()
    found, wanted = contents(tmp_path / format), contents(tmp_path / "jsonl")
    assert found.keys() == wanted.keys()
    assert all(found[name] == wanted[name] for name in found if name.endswith(".tfrecord"))
    assert open_source(format="tfrecord", input=tmp_path / format).payload == "flac"


def test_shards_of_an_archive_that_was_replaced_are_written_again(tmp_path, capsys):
    items = make_items(2)
    columns = {"audio": audio_of(items), "text": ["a", "b"]}
    path = write_parquet(tmp_path / "t.parquet", columns)
    argv = ["--format=parquet", f"--input={path}", f"--output={tmp_path}/out", "--num_shards=1", "--num_workers=1"]
    assert prepare.main(argv) == 0
    later = os.stat(tmp_path / "out/index.json").st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    capsys.readouterr()
    assert prepare.main(argv) == 0
    assert "(finished before)" not in capsys.readouterr().out


def test_a_bad_row_is_named_once_and_the_others_are_packed(tmp_path, capsys):
    audio = audio_of(make_items(5))
    audio[3]["bytes"] = audio[3]["bytes"][:-4000]  # found only when it is decoded
    columns = {"audio": audio, "text": ["one", None, "three", "four", "five"], "id": list("abcde")}
    path = write_parquet(tmp_path / "t.parquet", columns)
    argv = ["--format=parquet", f"--input={path}", f"--output={tmp_path}/out", "--num_workers=1"]
    assert prepare.main([*argv, "--max_unreadable_ratio=0.5"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if f"{path}, row 1 has no text, add it" in line]
    assert [line for line in lines if f"{path}#row=3&column=audio.bytes" in line]
    assert list(open_source(format="tfrecord", input=tmp_path / "out").utterance_ids) == ["a", "c", "e"]
    assert prepare.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("format", FORMATS)
def test_the_doctor_finds_what_it_finds_in_the_manifest(inputs, format):
    def report_of(name):
        fields = {"format": name, "input": inputs[name]}
        options = {"tokenizer": TOKENIZER, "text_normalization": "librispeech"}
        build_train = partial(train_data, global_batch_size=2, seed=0, **options, **fields)
        build_eval = partial(eval_data, batch_size=2, **options, **fields)
        sets = [
            DatasetSpec(name, fields, lambda report, build=build: build(report=report), lambda rows, samples: rows)
            for name, build in (("", build_train), ("dev", build_eval))
        ]
        found = examine(sets=sets, frames_fn=lambda samples: np.asarray(samples) // 320, **options)
        return [(item.code, item.where, item.details) for item in found.findings]

    assert report_of(format) == report_of("jsonl") != []
