"""Folders and URLs through one set of functions; ram:// needs no network and no disk, file:// crosses processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.audio.decoding import load_audio, read_header
from data.common.errors import InputError


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
    assert storage.states_or_none([path, f"{path}.none", path]) == [storage.state(path), None, storage.state(path)]
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


def test_a_name_that_no_file_can_have_has_no_state() -> None:
    assert storage.states_or_none(["a\0.wav", "x" * 5_000, "odd://a.wav"]) == [None, None, None]


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


def test_content_is_appended_and_what_is_written_anew_replaces(root: str) -> None:
    path = storage.join(root, "lines")
    for piece in (b"a\n", b"b\n"):
        storage.append_bytes(path, piece)
    assert storage.read_bytes(path) == b"a\nb\n"
    storage.write_bytes(path, b"c")
    assert storage.read_bytes(path) == b"c"


def test_a_folder_moves_and_goes_with_all_that_is_in_it(root: str) -> None:
    for name in ("dev/history/2", "dev/p", "dev-ema/p"):
        storage.make_dirs(storage.parent(storage.join(root, name)))
        storage.write_bytes(storage.join(root, name), name.encode())
    # The name of one folder begins with that of the other.
    assert storage.list_names(storage.join(root, "dev")) == ["history", "p"]
    storage.make_dirs(storage.join(root, "aside"))
    storage.move(storage.join(root, "dev"), storage.join(root, "aside/dev"))
    assert storage.read_bytes(storage.join(root, "aside/dev/history/2")) == b"dev/history/2"
    assert not storage.exists(storage.join(root, "dev/p"))
    storage.remove_tree(storage.join(root, "aside"))
    storage.remove_tree(storage.join(root, "aside"))
    assert not storage.exists(storage.join(root, "aside/dev/p"))
    assert storage.read_bytes(storage.join(root, "dev-ema/p")) == b"dev-ema/p"


def test_parents_of_a_url_stay_urls() -> None:
    assert [storage.parent(path) for path in ("gs://b/a/x", "gs://b/a", "gs://b", "a/x", "x")] == [
        "gs://b/a", "gs://b", "gs://b", "a", "",
    ]  # fmt: skip
    assert storage.absolute("gs://b/a/") == "gs://b/a" == storage.real("gs://b/a")


def test_an_unknown_kind_of_url_is_one_line() -> None:
    with pytest.raises(OSError, match="cannot use foo://a/b: File system scheme 'foo' not implemented") as caught:
        storage.make_dirs("foo://a/b")
    assert "\n" not in str(caught.value)


def test_an_error_without_a_path_gets_one() -> None:
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: 'a/b'"), storage.named_errors("a/b"):
        raise OSError(28, "No space left on device")
