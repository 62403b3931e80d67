"""Which recordings are meant."""

from __future__ import annotations

import io
import types
from pathlib import Path

import pytest

from engine.inference import inputs
from engine.inference.inputs import find_audio, readable_paths


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("a")


def test_folders_are_searched_to_the_bottom_and_nothing_comes_twice(tmp_path):
    write(tmp_path / "sub" / "deep", "z.wav")
    write(tmp_path / "sub", "b.wav", "a.WAV", "notes.txt")
    found = find_audio([str(tmp_path / "sub" / "b.wav"), str(tmp_path / "sub")])
    assert [path[len(str(tmp_path / "sub")) + 1 :] for path in found] == ["b.wav", "a.WAV", "deep/z.wav"]


def test_patterns(tmp_path):
    write(tmp_path, "b.wav", "a.wav", "c.flac")
    write(tmp_path / "deep", "d.wav")
    assert [Path(p).name for p in find_audio([str(tmp_path / "*.wav")])] == ["a.wav", "b.wav"]
    assert [Path(p).name for p in find_audio([str(tmp_path / "**" / "[cd].*")])] == ["c.flac", "d.wav"]
    # A file of that very name is meant itself.
    write(tmp_path, "e[1].wav", "e1.wav")
    assert [Path(p).name for p in find_audio([str(tmp_path / "e[1].wav")])] == ["e[1].wav"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--inputs is empty"),
        (["missing.wav"], "missing.wav: no such file"),
        (["missing*.wav"], r"missing\*.wav: no file fits"),
    ],
)
def test_nothing_to_transcribe_is_one_line(given, message):
    with pytest.raises(ValueError, match=message):
        find_audio(given)


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no .flac, .wav"):
        find_audio([str(tmp_path)])


def test_standard_input_becomes_a_file_that_is_gone_afterwards(monkeypatch):
    monkeypatch.setattr(inputs.sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"RIFF...")))
    with readable_paths(["a.wav", "-"]) as paths:
        assert paths[0] == "a.wav"
        assert Path(paths[1]).read_bytes() == b"RIFF..."
    assert not Path(paths[1]).exists()
