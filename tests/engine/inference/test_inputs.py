"""Which recordings are meant."""

from __future__ import annotations

import io
import os
import types
from pathlib import Path

import pytest

from common import audio_kinds
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
        (["missing*.wav"], r"missing\*.wav: no file matches"),
    ],
)
def test_nothing_to_transcribe_is_one_line(given, message):
    with pytest.raises(ValueError, match=message):
        find_audio(given)


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no .flac, .wav"):
        find_audio([str(tmp_path)])


def names(found, folder):
    return [os.path.relpath(path, folder) for path in found]


def test_recordings_are_found_by_what_they_hold_and_the_rest_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audio_kinds, "has_media_extra", lambda: False)
    write(tmp_path, "a.wav", "voice.oga", "call.sph", "notes.txt", "scores.json", "talk.raw")
    (tmp_path / "nosuffix").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    (tmp_path / "memo.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (tmp_path / "talk.dat").write_bytes(b"\x1a\x45\xdf\xa3webm")
    os.mkfifo(tmp_path / "pipe.wav")
    assert names(find_audio([str(tmp_path)]), tmp_path) == ["a.wav", "call.sph", "nosuffix", "voice.oga"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "4 that cannot be read" in told
    for what in ("memo.m4a (MP4", "talk.dat (WebM", "talk.raw (not a format", "pipe.wav (a pipe"):
        assert what in told
    assert "ffmpeg -i" in told and "1 other file(s) (1 .json)" in told and "notes.txt" not in told


def test_nothing_is_told_of_a_folder_of_recordings_and_transcripts(tmp_path, capsys):
    write(tmp_path, "a.wav", "a.txt", "1-1.trans.txt")
    assert len(find_audio([str(tmp_path)])) == 1
    assert capsys.readouterr().err == ""


def test_a_folder_of_nothing_but_foreign_recordings_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_kinds, "has_media_extra", lambda: False)
    (tmp_path / "memo.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    with pytest.raises(ValueError, match=r"no \.flac.* in this folder; it holds 1 that cannot be read.*ffmpeg -i"):
        find_audio([str(tmp_path)])


def test_hidden_files_are_passed_over(tmp_path, capsys):
    write(tmp_path, "a.wav", "._a.wav", ".DS_Store")
    write(tmp_path / ".Trashes", "b.wav")
    assert names(find_audio([str(tmp_path)]), tmp_path) == ["a.wav"]
    assert capsys.readouterr().err == ""


def test_linked_folders_are_followed_once(tmp_path):
    write(tmp_path / "store" / "deep", "b.wav")
    write(tmp_path / "in" / "own", "a.wav")
    (tmp_path / "in" / "0linked").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "0again").symlink_to(tmp_path / "in" / "own")
    (tmp_path / "store" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "c.wav").symlink_to(tmp_path / "store" / "deep" / "b.wav")
    found = find_audio([str(tmp_path / "in")])
    assert names(found, tmp_path / "in") == ["0linked/deep/b.wav", "c.wav", "own/a.wav"]


def test_a_pipe_among_the_inputs_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"a\.wav: a pipe or a device"):
        find_audio([str(tmp_path / "a.wav")])


def test_a_file_name_with_commas_is_put_together_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "Hello, world.wav", "b.wav", "Hello")
    assert find_audio(["Hello", "world.wav", "b.wav"]) == ["Hello, world.wav", "b.wav"]
    with pytest.raises(ValueError, match=r"^gone\.wav: no such file"):
        find_audio(["b.wav", "gone.wav", "Hello", "world.wav"])


def test_standard_input_becomes_a_file_that_is_gone_afterwards(monkeypatch):
    monkeypatch.setattr(inputs.sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"RIFF...")))
    with readable_paths(["a.wav", "-"]) as paths:
        assert paths[0] == "a.wav"
        assert Path(paths[1]).read_bytes() == b"RIFF..."
    assert not Path(paths[1]).exists()
