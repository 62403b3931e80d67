"""Audio that a manifest does not list."""

from __future__ import annotations

import json
from pathlib import Path

from data.corpus.unlisted_audio import unlisted_audio


def make(folder: Path) -> Path:
    (folder / "audio").mkdir()
    for name in ("a.wav", "b.FLAC", "c.txt", "d.wav", "._a.wav", ".hidden.wav"):
        (folder / "audio" / name).touch()
    lines = [{"audio_filepath": f"audio/{name}.wav", "text": "A", "split": "x"} for name in ("a", "gone")]
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    return path


def test_audio_beside_listed_audio_is_named(tmp_path: Path) -> None:
    path = make(tmp_path)
    assert unlisted_audio(format="jsonl", input=path) == {
        "b": str(tmp_path / "audio/b.FLAC"), "d": str(tmp_path / "audio/d.wav")
    }  # fmt: skip


def test_a_manifest_with_its_own_text_column_lists_its_audio(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.write_text(path.read_text().replace('"text"', '"said"'))
    assert set(unlisted_audio(format="jsonl", input=path, text_column="said")) == {"b", "d"}


def test_manifests_side_by_side_share_their_folders(tmp_path: Path) -> None:
    path = make(tmp_path)
    (tmp_path / "dev.jsonl").touch()
    assert unlisted_audio(format="jsonl", input=path) == {}


def test_trees_and_shards_have_no_unlisted_audio(tmp_path: Path) -> None:
    assert unlisted_audio(format="librispeech", input=tmp_path) == {}
    assert unlisted_audio(format="tfrecord", input=tmp_path) == {}
