"""The folder from which the paths of a list count."""

from __future__ import annotations

from data.corpus.listed_paths import resolve_paths


def test_paths_count_from_the_nearest_folder_above_that_has_one_of_them(tmp_path, monkeypatch):
    folder = tmp_path / "recipe/data/train"
    folder.mkdir(parents=True)
    (tmp_path / "recipe/wav").mkdir()
    (tmp_path / "recipe/wav/b.wav").touch()
    paths = ["wav/a.wav", "wav/b.wav", "/x/c.wav", "gs://bucket/d.wav"]
    found = [f"{tmp_path}/recipe/wav/a.wav", f"{tmp_path}/recipe/wav/b.wav", "/x/c.wav", "gs://bucket/d.wav"]
    assert resolve_paths(paths, str(folder)) == found
    monkeypatch.chdir(tmp_path / "recipe")
    assert resolve_paths(paths, "data/train") == found
    (folder / "wav").mkdir()
    (folder / "wav/a.wav").touch()
    assert resolve_paths(paths, str(folder))[0] == f"{folder}/wav/a.wav"


def test_paths_that_lead_nowhere_count_from_the_folder_of_the_list(tmp_path):
    assert resolve_paths(["wav/a.wav"], str(tmp_path)) == [f"{tmp_path}/wav/a.wav"]
    assert resolve_paths(["a\0.wav", "x" * 5000], "ram://listed/data") == [
        "ram://listed/data/a\0.wav", f"ram://listed/data/{'x' * 5000}",
    ]  # fmt: skip


def test_the_current_folder_comes_last(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.wav").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert resolve_paths(["a.wav"], str(tmp_path / "lists")) == ["a.wav"]
