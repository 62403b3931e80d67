"""File functions for both local paths and URLs such as gs://bucket/folder, which go through tf.io.gfile.

A path is a string or PathLike. If it contains "://" it is a URL and never passes through `pathlib`, which would turn it
into gs:/bucket. Local paths do not need TensorFlow, whose import takes seconds.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

PathLike = str | os.PathLike[str]
Found = TypeVar("Found")
_REMOTE_THREADS = 32  # a request takes tens of milliseconds, most of it waiting


class FileState(NamedTuple):
    """Size of a file in bytes, and time of its last change in nanoseconds."""

    num_bytes: int
    mtime_ns: int


def is_remote(path: PathLike) -> bool:
    """Returns whether a path is a URL."""
    return "://" in os.fspath(path)


def join(folder: PathLike, *parts: PathLike) -> str:
    """Joins paths like os.path.join; a URL or absolute part replaces those before it, an empty part adds nothing."""
    joined = os.fspath(folder)
    for part in parts:
        if part := os.fspath(part):
            joined = part if is_remote(part) else posixpath.join(joined, part)
    return joined


def parent(path: PathLike) -> str:
    """Returns the folder of a path: "" for a name alone, and the top of a URL for itself."""
    text = os.fspath(path)
    if not is_remote(text):
        return os.path.dirname(text)
    scheme, _, rest = text.rstrip("/").partition("://")
    return f"{scheme}://{posixpath.dirname(rest) or rest}"


def absolute(path: PathLike) -> str:
    """Returns the absolute path; a URL is one already."""
    return os.fspath(path).rstrip("/") if is_remote(path) else os.path.abspath(path)


def real(path: PathLike) -> str:
    """Returns the canonical path, with links resolved."""
    return absolute(path) if is_remote(path) else os.path.realpath(path)


def exists(path: PathLike) -> bool:
    """Returns whether a file or a folder exists."""
    with _plain_errors(path):
        return _gfile().exists(os.fspath(path)) if is_remote(path) else os.path.exists(path)


def is_dir(path: PathLike) -> bool:
    """Returns whether a folder exists."""
    if not is_remote(path):
        return os.path.isdir(path)
    with _plain_errors(path):  # isdir alone hides errors such as an unknown scheme or a missing permission
        return _gfile().exists(os.fspath(path)) and _gfile().isdir(os.fspath(path))


def is_file(path: PathLike) -> bool:
    """Returns whether a file exists."""
    return exists(path) and not is_dir(path) if is_remote(path) else os.path.isfile(path)


def state(path: PathLike) -> FileState:
    """Returns the size and time of a file; raises OSError if it is absent."""
    if not is_remote(path):
        status = os.stat(path)
        return FileState(status.st_size, status.st_mtime_ns)
    with _plain_errors(path):
        found = _gfile().stat(os.fspath(path))
        return FileState(found.length, found.mtime_nsec)


def states(paths: Sequence[PathLike]) -> list[FileState]:
    """Returns the `state` of many files, asking for remote ones in parallel."""
    return _map_paths(state, paths)


def states_or_none(paths: Sequence[PathLike]) -> list[FileState | None]:
    """Returns the `state` of many files as `states` does, None for one that is absent or cannot be asked for."""

    def find(path: PathLike) -> FileState | None:
        try:
            return state(path)
        except (OSError, ValueError):  # ValueError: no file can have this name
            return None

    return _map_paths(find, paths)


def _map_paths(function: Callable[[PathLike], Found], paths: Sequence[PathLike]) -> list[Found]:
    """Returns the results of a function of each path, which are asked for in parallel where some are remote."""
    if not any(map(is_remote, paths)):
        return list(map(function, paths))
    with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
        return list(pool.map(function, paths))


def glob(folder: PathLike, pattern: str) -> list[str]:
    """Returns the paths under a folder that match a pattern, sorted; `*` matches within one level."""
    if not is_remote(folder):
        return sorted(map(str, Path(folder).glob(pattern)))
    with _plain_errors(folder):
        return sorted(_gfile().glob(join(folder, pattern)))


def list_names(folder: PathLike) -> list[str]:
    """Returns the names in a folder, sorted; none if it is absent."""
    if not is_dir(folder):
        return []
    with _plain_errors(folder):
        names = _gfile().listdir(os.fspath(folder)) if is_remote(folder) else os.listdir(folder)
    found = sorted(name.rstrip("/") for name in names)  # some file systems mark folders with a slash
    if os.fspath(folder).startswith("ram://"):  # for a folder "dev" it also lists the content of "dev-other"
        return [name for name in found if exists(join(folder, name))]
    return found


def make_dirs(folder: PathLike) -> None:
    """Makes a folder and its parents if they are absent."""
    with _plain_errors(folder):
        if is_remote(folder):
            _gfile().makedirs(os.fspath(folder))
        else:
            os.makedirs(folder, exist_ok=True)


def open_binary(path: PathLike) -> BinaryIO:
    """Opens a file for reading; raises OSError if it is absent. A remote file is read on demand."""
    if not is_remote(path):
        return io.BufferedReader(open_regular(path))
    if not exists(path):  # GFile would raise at the first read
        raise FileNotFoundError(f"no file {os.fspath(path)}")
    return cast(BinaryIO, _gfile().GFile(os.fspath(path), "rb"))


def open_regular(path: PathLike) -> io.FileIO:
    """Opens a local file without a buffer; raises OSError for a pipe or a device, which could block forever."""
    # Non-blocking, because opening a pipe without a writer would block.
    file = io.FileIO(os.fspath(path), opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", os.fspath(path))
    return file


def read_bytes(path: PathLike) -> bytes:
    """Returns the content of a file."""
    if not is_remote(path):
        with open_regular(path) as local:
            return local.readall()
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "rb") as file:
        return file.read()


def read_range(path: PathLike, offset: int, length: int) -> bytes:
    """Returns up to `length` bytes of a file from `offset`; for many reads of a local file, keep it open instead."""
    if not is_remote(path):
        with open(path, "rb") as local:
            return os.pread(local.fileno(), length, offset)
    # A new handle, because a GFile has one position and threads call this.
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "rb") as file:
        file.seek(offset)
        return file.read(length)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file, not atomically."""
    if not is_remote(path):
        Path(path).write_bytes(content)
        return
    if os.fspath(path).startswith("ram://"):  # this file system appends instead of overwriting
        remove(path)
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "wb") as file:
        file.write(content)


def append_bytes(path: PathLike, content: bytes) -> None:
    """Appends to a file, which is made if absent.

    Raises:
        OSError: If it cannot be written, for example because the disk is full; a local file is left unchanged.
    """
    if is_remote(path):
        with _plain_errors(path), _gfile().GFile(os.fspath(path), "ab") as file:
            file.write(content)
        return
    # Unbuffered, so that the content is written in one call and a kill leaves all or nothing of it.
    with named_errors(path), open(path, "ab", buffering=0) as local:
        size = local.tell()
        try:
            num_written = local.write(content)
            if num_written != len(content):
                # A part may fit on a disk that is nearly full; writing the rest raises the error.
                local.write(content[num_written:])
        except OSError:
            local.truncate(size)
            raise


def copy(source: PathLike, target: PathLike) -> None:
    """Copies a file from or to a URL, overwriting the target."""
    with _plain_errors(target):
        _gfile().copy(os.fspath(source), os.fspath(target), overwrite=True)


def replace(source: PathLike, target: PathLike) -> None:
    """Renames a file within one file system, overwriting the target."""
    if not is_remote(target):
        os.replace(source, target)
        return
    with _plain_errors(target):
        _gfile().rename(os.fspath(source), os.fspath(target), overwrite=True)


def remove(path: PathLike) -> None:
    """Deletes a file if it exists."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        with _plain_errors(path):
            _gfile().remove(os.fspath(path))


def move(source: PathLike, target: PathLike) -> None:
    """Renames a file or a folder within one file system to a free path; folders behind a URL move file by file."""
    if not is_remote(target):
        os.replace(source, target)
        return
    if not is_dir(source):
        make_dirs(parent(target))
        replace(source, target)
        return
    for name in list_names(source):
        move(join(source, name), join(target, name))
    remove_tree(source)


def remove_tree(folder: PathLike) -> None:
    """Deletes a folder with its content if it exists."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in list_names(folder):
        path = join(folder, name)
        (remove_tree if is_dir(path) else remove)(path)
    with suppress(OSError), _plain_errors(folder):  # object stores have no folders to delete
        _gfile().rmtree(os.fspath(folder))


@contextmanager
def named_errors(path: PathLike) -> Iterator[None]:
    """Adds this path to an OSError without a file name, as writes, syncs and locks raise."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


@contextmanager
def _plain_errors(path: PathLike) -> Iterator[None]:
    """Converts TensorFlow's errors about a URL to OSErrors of one line."""
    if not is_remote(path):
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"no file or folder {os.fspath(path)} ({error.message})") from error
    except tf.errors.OpError as error:
        raise OSError(f"cannot use {os.fspath(path)}: {error.message}") from error
