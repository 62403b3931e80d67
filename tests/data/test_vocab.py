"""python -m data.vocab."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import vocab
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"


def test_vocabulary_of_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    line = {"audio_filepath": "a.wav", "text": "\u00dcben, \u00fcben! Ja"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    argv = ["--format=jsonl", f"--input={tmp_path / 'm.jsonl'}", "--text_normalization=unicode"]
    assert vocab.main([*argv, f"--output={tmp_path / 'vocab.json'}"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'vocab.json'}: 11 tokens from 1 transcripts\n"
    assert err == ""
    tokens = CharTokenizer.from_file(tmp_path / "vocab.json").tokens
    assert tokens[4:] == ("|", "b", "e", "n", "\u00fc", "a", "j")


def test_other_scripts_and_a_missing_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    table = ["path\tsentence", "a.wav\t\u0647\u064e\u0644, \u0647\u0644\u061f", "gone.wav\tx"]
    (tmp_path / "m.tsv").write_text("\n".join(table))
    argv = ["--format=tsv", f"--input={tmp_path / 'm.tsv'}", "--text_normalization=unicode"]
    assert vocab.main([*argv, f"--output={tmp_path / 'vocab.json'}"]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "warning: 1 bad utterances left out; no audio file" in err
    tokens = CharTokenizer.from_file(tmp_path / "vocab.json").tokens
    assert tokens[4:] == ("|", "\u0644", "\u0647", "\u064e")


def test_the_reason_is_told_where_every_line_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.jsonl"
    for line, reason in (
        ('{"audio_filepath": "a.wav"}', f"{path}:1 has no text, add it: "),
        ('{"audio_filepath": "a.wav", "text": "A"}', f"no audio file {tmp_path / 'a.wav'}: check the path"),
    ):
        path.write_text(line)
        assert vocab.main(["--format=jsonl", f"--input={path}", f"--output={tmp_path / 'vocab.json'}"]) == 2
        err = capsys.readouterr().err
        assert f"data.vocab: no utterance of {path} can be used: {reason}" in err and err.count("\n") == 1


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--format=tfrecord", f"--input={tmp_path}", f"--output={tmp_path / 'vocab.json'}"]
    assert vocab.main(argv) == 2
    assert capsys.readouterr().err == (
        f"data.vocab: no {tmp_path / 'index.json'}: make it with python -m data.prepare\n"
    )
    assert not (tmp_path / "vocab.json").exists()


@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_real_english_has_the_published_characters(tmp_path: Path) -> None:
    argv = ["--format=librispeech", f"--input={CORPORA / 'LibriSpeech'}", "--split=train-clean-5"]
    assert vocab.main([*argv, f"--output={tmp_path / 'vocab.json'}"]) == 0
    tokens = CharTokenizer.from_file(tmp_path / "vocab.json").tokens
    assert set(tokens) == set(FACEBOOK_TOKENS)
    assert tokens[:6] == FACEBOOK_TOKENS[:6]


def test_hindi_with_the_default_normalization_is_told_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "\u0928\u092e"}))
    assert vocab.main(["--format=jsonl", f"--input={tmp_path / 'm.jsonl'}", f"--output={tmp_path / 'vocab.json'}"]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "data.vocab: warning: --text_normalization=librispeech is for English" in err
