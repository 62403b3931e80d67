"""Marks of wrong transcripts are merged into manifests: atomically, once, and without touching anything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from data.apply_corrections import main
from data.corpus.manifest import read_jsonl, read_utterances


def write_marks(folder, *marks, name="marks.jsonl"):
    lines = [{"set": "train", "mark": "wrong", **mark} for mark in marks]
    path = folder / name
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def merge(manifest, marks, *more):
    return main([f"--input={manifest}", f"--corrections={marks}", *more])


def test_a_correction_replaces_the_text_and_a_mark_without_one_removes_the_line(tmp_path, capsys):
    manifest = tmp_path / "train.jsonl"
    lines = [
        '{"audio_filepath": "a.wav", "text":"One,  two.","accent":"x"}\r\n',  # odd spaces stay in other lines
        '{"audio_filepath": "b.wav", "text": "drei", "note": 1.50}\n',
        "no JSON at all\n",
        '{"audio_filepath": "c.wav", "sentence": "four"}',
    ]
    manifest.write_bytes(("\ufeff" + "".join(lines)).encode())
    marks = write_marks(
        tmp_path,
        {"utterance_id": "a", "text": "one two", "correction": " Öne \n two. "},  # as a report normalizes it
        {"utterance_id": "c", "text": "four"},
    )
    assert merge(manifest, marks) == 0
    expected = '\ufeff{"audio_filepath": "a.wav", "text": "Öne two.", "accent": "x"}\r\n' + "".join(lines[1:3])
    assert manifest.read_bytes().decode() == expected
    assert capsys.readouterr().out.strip().startswith(f"{manifest}: 1 corrected, 1 left out")
    # What was there can be had back, and the same command changes nothing.
    changes = [json.loads(line) for line in (tmp_path / "train.changes.jsonl").read_text().splitlines()]
    assert [change["line"] for change in changes] == [lines[0].strip(), lines[3]]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert merge(manifest, marks) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "0 corrected, 0 left out, 2 merged before" in capsys.readouterr().out


def test_marks_that_do_not_fit_are_named_and_the_others_are_merged(tmp_path, capsys):
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": f"{n}.wav", "text": n}) + "\n" for n in ("a", "b", "c")))
    marks = write_marks(
        tmp_path,
        {"utterance_id": "a", "text": "something else", "correction": "x"},
        {"utterance_id": "z", "text": "z"},
        {"utterance_id": "b", "text": "b", "correction": "bee"},
        {"utterance_id": "c", "text": "c", "correction": "sea"},
        {"utterance_id": "c", "text": "c", "correction": "see"},
    )
    with marks.open("a") as file:
        file.write('{"utterance_id": 3, "text": "x"}\nbroken\n')
    assert merge(manifest, marks) == 2
    texts = [json.loads(line)["text"] for line in manifest.read_text().splitlines()]
    assert texts == ["a", "bee", "sea"]
    errors = capsys.readouterr().err
    assert "marks.jsonl:5 is not merged: it contradicts" in errors and "and 4 more" in errors
    assert "has no utterance z" in errors and "'something else'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t")])
def test_a_table_keeps_its_other_rows_and_columns(tmp_path, name, delimiter):
    table = tmp_path / name
    quoted = '"said\nin two lines, ""so"""' if delimiter == "," else '"quoted'
    rows = [["path", "sentence", "accent"], ["a.mp3", quoted, "x"], ["b.mp3", "two", "y"], ["c.mp3", "three", "z"]]
    text = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n"
    table.write_bytes(text.encode())
    said = 'said\nin two lines, "so"' if delimiter == "," else '"quoted'
    marks = write_marks(
        tmp_path,
        {"utterance_id": "a", "text": said, "correction": 'now, "so"' if delimiter == "," else "now"},
        {"utterance_id": "c", "text": "three"},
    )
    assert merge(table, marks) == 0
    first = 'a.mp3,"now, ""so""",x' if delimiter == "," else "a.mp3\tnow\tx"
    assert table.read_bytes().decode().split("\r\n") == [
        delimiter.join(rows[0]), first, delimiter.join(rows[2]), ""
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
def test_a_column_of_another_name_is_corrected(tmp_path, name):
    manifest = tmp_path / name
    if name == "m.csv":
        manifest.write_text("path,heard,text\na.wav,one,other\n")
    else:
        manifest.write_text(json.dumps({"path": "a.wav", "heard": "one", "text": "other"}) + "\n")
    marks = write_marks(tmp_path, {"utterance_id": "a", "text": "one", "correction": "two"})
    assert merge(manifest, marks) == 2  # "other" is not what was marked
    assert merge(manifest, marks, "--text_column=heard") == 0
    assert manifest.read_text().count("two") == 1 and manifest.read_text().count("other") == 1


def test_marks_of_one_set_are_chosen_by_its_name(tmp_path, capsys):
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a"}) + "\n")
    marks = write_marks(
        tmp_path,
        {"utterance_id": "a", "text": "a", "correction": "b", "set": "dev"},
        {"utterance_id": "b", "text": "b"},
    )
    assert merge(manifest, marks, "--set=dev") == 0
    assert json.loads(manifest.read_text())["text"] == "b"
    assert merge(manifest, marks, "--set=test") == 2
    assert "has no mark of test; it has 'dev', 'train'" in capsys.readouterr().err


def test_an_output_of_its_own_leaves_the_manifest_alone(tmp_path):
    manifest, output = tmp_path / "train.jsonl", tmp_path / "corrected.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a"}) + "\n")
    before = manifest.read_bytes()
    marks = write_marks(tmp_path, {"utterance_id": "a", "text": "a", "correction": "b"})
    assert merge(manifest, marks, f"--output={output}") == 0
    assert manifest.read_bytes() == before and json.loads(output.read_text())["text"] == "b"
    assert (tmp_path / "corrected.changes.jsonl").is_file()


def test_a_single_manifest_takes_no_split(tmp_path, capsys):
    manifest = tmp_path / "train.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a", "split": "dev"}) + "\n")
    assert merge(manifest, write_marks(tmp_path, {"utterance_id": "a", "text": "a"}), "--split=dev") == 2
    assert "--split=dev: " in capsys.readouterr().err and manifest.read_text().count("\n") == 1


def test_a_corpus_that_is_no_manifest_becomes_a_corrected_one(tmp_path, capsys):
    folder = tmp_path / "libri/dev/1/2"
    folder.mkdir(parents=True)
    for number in range(3):
        soundfile.write(folder / f"1-2-{number}.flac", np.full(1600, 0.1), 16_000)
    (folder / "1-2.trans.txt").write_text("1-2-0 ONE\n1-2-1 TWO\n1-2-2 THREE\n")
    too = {"utterance_id": "1-2-1", "text": "two", "correction": "TOO"}
    marks = write_marks(tmp_path, too, {"utterance_id": "1-2-2", "text": "three"})
    assert merge(tmp_path / "libri", marks, "--format=librispeech", "--split=dev") == 2
    assert "give its --format, and an --output.jsonl" in capsys.readouterr().err
    output = tmp_path / "out/dev.jsonl"
    assert merge(tmp_path / "libri", marks, "--format=librispeech", "--split=dev", f"--output={output}") == 0
    found = read_jsonl(output)
    assert [(item.utterance_id, item.text) for item in found] == [("1-2-0", "ONE"), ("1-2-1", "TOO")]
    assert read_utterances(format="jsonl", input=output)[0].speaker_id == "1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"audio_filepath": "a.wav", "text": "\xff"}\n', "not UTF-8"),
        (b'[{"audio_filepath": "a.wav", "text": "a"}]', "one JSON array"),
        (b"\x1f\x8b", "compressed"),
        (None, "no manifest"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line_and_stays(tmp_path, capsys, content, message):
    manifest = tmp_path / "train.jsonl"
    if content is not None:
        manifest.write_bytes(content)
    marks = write_marks(tmp_path, {"utterance_id": "a", "text": "a"})
    assert merge(manifest, marks) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert content is None or manifest.read_bytes() == content
