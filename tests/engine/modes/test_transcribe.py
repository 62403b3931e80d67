"""--mode=transcribe between its arguments and the transcriber; whole runs are in tests/test_run.py."""

# ruff: noqa: F811 - a fixture of another file is an argument here

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from configs import base
from engine.inference import kept_transcripts
from engine.inference.beam_search import Alternative
from engine.inference.loading import ReadingOptions
from engine.inference.transcriber import Transcript
from engine.inference.words import Timed
from engine.modes import transcribe
from tests.engine.inference.test_loading import make_parts, stream_audio, trained  # noqa: F401 - a fixture


def test_the_runs_own_weights_make_the_text(trained, tmp_path, capsys):
    workdir, text = trained
    (tmp_path / "a.wav").touch()
    output = tmp_path / "out.jsonl"
    status = transcribe.run(
        parts=make_parts(), checkpoint=workdir, inputs=[str(tmp_path / "a.wav")], output=str(output)
    )
    assert status == 0
    assert json.loads(output.read_text())["text"] == text
    printed = capsys.readouterr().out
    assert f"  reference:  said so\n  hypothesis: {text}\n" in printed
    assert "1 of 1 files" in printed


def test_a_skipped_file_makes_the_status_2(trained, tmp_path, capsys):
    for name in ("a.wav", "bad.wav"):
        (tmp_path / name).touch()
    status = transcribe.run(
        parts=make_parts(), checkpoint=trained[0], inputs=[str(tmp_path)], output=str(tmp_path / "out.jsonl")
    )
    assert status == 2
    captured = capsys.readouterr()
    assert "1 of 2 files" in captured.out
    assert "bad.wav was skipped: not audio" in captured.err


def test_output_must_be_named(trained):
    with pytest.raises(ValueError, match="--output is empty"):
        transcribe.run(parts=make_parts(), checkpoint=trained[0], inputs=["a.wav"], output="")


class Found:
    def __init__(self, tokens, score):
        self.tokens, self.score, self.log_prob = tokens, score, 0.0
        self.spans = [(token, place, place + 1, 0.5) for place, token in enumerate(tokens)]


def test_the_search_comes_from_the_run_and_from_what_is_given_and_its_best_texts_are_written(trained, tmp_path):
    asked = []

    def build_search(**fields):
        asked.append(fields)
        return lambda log_probs: [Found([1, 2], -1.5), Found([2, 2], -2.0)]

    (tmp_path / "a.wav").touch()
    path = Path(trained[0]) / "config.json"
    config = json.loads(path.read_text())
    config["decode"] = {"method": "beam", "beam_size": 7}  # of a version that had no other fields
    path.write_text(json.dumps(config))
    transcribe.run(
        parts=make_parts(build_search=build_search, aligner=lambda log_probs, labels: Found(labels, 0.0)),
        checkpoint=trained[0],
        inputs=[str(tmp_path / "a.wav")],
        output=str(tmp_path / "out.jsonl"),
        reading=ReadingOptions(decode_defaults=base.get_decode().to_dict(), decode_given={"num_hypotheses": 2}),
    )
    (fields,) = asked
    assert (fields["method"], fields["beam_size"], fields["num_hypotheses"]) == ("beam", 7, 2)
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["text"] == record["words"][0]["text"] == "ab"
    assert record["words"][0]["confidence"] == 0.5
    assert record["nbest"] == [{"text": "ab", "score": -1.5}, {"text": "bb", "score": -2.0}]


@pytest.fixture
def many(tmp_path, trained, capsys):
    """A call that transcribes 24 recordings, three batches, and ends as by a signal when it has read `until` of them.

    It returns the names of those it has read, and the bytes that it wrote, or None.
    """
    folder, output = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:02}.wav").touch()

    def call(*, until=99, **options):
        names, lock = [], threading.Lock()

        def stream(path, on_rate_mismatch):
            with lock:
                if len(names) == until:
                    raise SystemExit(143)
                names.append(Path(path).stem)
            yield from stream_audio(path, on_rate_mismatch)

        parts = dataclasses.replace(make_parts(), stream_audio=stream)
        arguments = {"parts": parts, "checkpoint": trained[0], "inputs": [str(folder)], "output": str(output)}
        if until == 99:
            assert transcribe.run(**arguments, **options) == 0
            return names, output.read_bytes()
        with pytest.raises(SystemExit):
            transcribe.run(**arguments, **options)
        return names, None

    return call


def test_the_same_command_goes_on_and_writes_what_an_uninterrupted_one_writes(many, tmp_path, capsys):
    names, straight = many()
    assert len(names) == 24 == len(straight.splitlines())
    (tmp_path / "out.jsonl").unlink()
    many(until=20)
    partial = tmp_path / "out.jsonl.partial"
    assert partial.exists() and not (tmp_path / "out.jsonl").exists()
    done = {Path(json.loads(line)["name"]).stem for line in partial.read_text().splitlines()[1:]}
    assert 8 <= len(done) < 24
    names, found = many()
    assert found == straight and set(names) == {f"{number:02}" for number in range(24)} - done
    assert f"continues: {len(done)} of 24 recordings are in {partial}" in capsys.readouterr().out
    assert not partial.exists()


def test_a_recording_that_has_changed_is_transcribed_anew(many, tmp_path):
    many(until=20)
    (tmp_path / "in/00.wav").write_bytes(b"longer")
    names, found = many()
    assert "00" in names and len(found.splitlines()) == 24


def test_other_settings_and_a_damaged_row_are_one_line(many, tmp_path):
    many(until=20)
    with pytest.raises(ValueError, match=r"other settings \(window_secs was 20.0, is 5.0\): give that command again"):
        many(reading=ReadingOptions(window_secs=5.0))
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text(partial.read_text().replace('"start_secs": ', '"start": '))
    with pytest.raises(ValueError, match=r"out.jsonl.partial: the row of .*'start_secs'.*; delete the file to begin"):
        many()


def test_a_row_holds_a_transcript_to_the_last_bit():
    letter = Timed("A", np.float32(0.1), 0.2, np.float64(1 / 3))
    word = Timed("A", 0.1, 0.2, 1 / 3, (letter,))
    transcript = Transcript("/a.wav", (word,), 1.7, (Alternative("A", -0.1), Alternative("B", -2.0)))
    row = json.loads(json.dumps(kept_transcripts.to_content(transcript)))
    assert kept_transcripts.from_row(row, "/a.wav") == transcript
    for field, value in (("alternatives", [["A"]]), ("alternatives", [3]), ("words", [None]), ("duration_secs", "1")):
        with pytest.raises(ValueError, match="the row of /a.wav"):
            kept_transcripts.from_row({**row, field: value}, "/a.wav")
