"""--mode=transcribe between its arguments and the transcriber; whole runs are in tests/test_run.py."""

# ruff: noqa: F811 - a fixture of another file is an argument here

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import base
from engine.modes import transcribe
from tests.engine.inference.test_loading import make_parts, trained  # noqa: F401 - a fixture


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
        decode_defaults=base.get_decode().to_dict(),
        decode_given={"num_hypotheses": 2},
    )
    (fields,) = asked
    assert (fields["method"], fields["beam_size"], fields["num_hypotheses"]) == ("beam", 7, 2)
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["text"] == record["words"][0]["text"] == "ab"
    assert record["words"][0]["confidence"] == 0.5
    assert record["nbest"] == [{"text": "ab", "score": -1.5}, {"text": "bb", "score": -2.0}]
