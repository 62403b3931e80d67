"""Folders and URLs through one set of functions; ram:// needs no network and no disk, file:// crosses processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.audio import load_audio, read_header
from data.errors import InputError


@pytest.fixture(params=["path", "file", "ram"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is there, as a path and as two kinds of URL."""
    if request.param == "path":
        return str(tmp_path)
    url = f"file://{tmp_path}" if request.param == "file" else f"ram://{tmp_path.name}"
    storage.make_dirs(url)
    return url


def test_every_kind_of_place_behaves_the_same(root: str) -> None:
    folder = storage.join(root, "a", "b")
    storage.make_dirs(folder)
    storage.make_dirs(folder)
    path = storage.join(folder, "x.txt")
    assert (storage.exists(path), storage.is_file(path), storage.is_dir(folder)) == (False, False, True)
    storage.write_bytes(path, b"hello world")
    assert (storage.exists(path), storage.is_file(path), storage.is_dir(path)) == (True, True, False)
    assert not storage.is_file(folder)
    assert storage.state(path).num_bytes == 11
    assert [state.num_bytes for state in storage.states([path, path])] == [11, 11]
    assert storage.read_bytes(path) == b"hello world"
    assert storage.read_range(path, 6, 3) == b"wor"
    assert storage.read_range(path, 9, 99) == b"ld"
    with storage.open_binary(path) as file:
        file.seek(-5, 2)
        assert file.read() == b"world"
    storage.replace(path, storage.join(folder, "y.txt"))
    assert storage.list_names(folder) == ["y.txt"]
    assert storage.glob(root, "*/*/*.txt") == [storage.join(folder, "y.txt")]
    storage.write_bytes(path, b"new")
    storage.replace(path, storage.join(folder, "y.txt"))  # over what is there
    assert storage.read_bytes(storage.join(folder, "y.txt")) == b"new"
    storage.remove(storage.join(folder, "y.txt"))
    storage.remove(storage.join(folder, "y.txt"))
    assert storage.list_names(folder) == storage.list_names(storage.join(root, "none")) == []
    assert storage.list_names(root) == ["a"]


@pytest.mark.parametrize("read", [storage.state, storage.read_bytes, storage.open_binary])
def test_absent_files_are_one_error_everywhere(root: str, read: Callable[[str], object]) -> None:
    with pytest.raises(FileNotFoundError, match="absent") as caught:
        read(storage.join(root, "absent"))
    assert "\n" not in str(caught.value)


def test_unknown_scheme_is_one_line() -> None:
    for use in (storage.exists, storage.read_bytes, storage.list_names, storage.make_dirs):
        with pytest.raises(OSError, match="foo://bucket/a: File system scheme 'foo' not implemented") as caught:
            use("foo://bucket/a")
        assert "\n" not in str(caught.value)


def test_joining() -> None:
    assert storage.join("gs://bucket/a", "b", "", "c.flac") == "gs://bucket/a/b/c.flac"
    assert storage.join("gs://bucket/a/", "b") == "gs://bucket/a/b"
    assert storage.join("local", "gs://bucket/a.flac") == "gs://bucket/a.flac"
    assert storage.join("local", "/absolute") == "/absolute"
    assert storage.join(Path("local"), Path("a")) == "local/a"
    assert (storage.is_remote("gs://b"), storage.is_remote(Path("/a:/b"))) == (True, False)


def test_audio_is_read_from_any_place(root: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, (20_000, 2)).astype(np.int16)
    for name in ("a.flac", "a.wav", "a.ogg", "a.mp3"):
        local = tmp_path / f"local-{name}"
        soundfile.write(local, samples, 16000)
        path = storage.join(root, name)
        storage.write_bytes(path, local.read_bytes())
        assert read_header(path) == read_header(local)
        np.testing.assert_array_equal(load_audio(path), load_audio(local))
        np.testing.assert_array_equal(load_audio("a name", content=local.read_bytes()), load_audio(local))
    broken = storage.join(root, "broken.flac")
    storage.write_bytes(broken, b"fLaC and no more")
    for read in (read_header, load_audio):
        with pytest.raises(InputError, match=r"cannot decode audio file .*broken\.flac"):
            read(broken)
        with pytest.raises(InputError, match=r"no audio file .*absent\.flac"):
            read(storage.join(root, "absent.flac"))
