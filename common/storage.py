"""Local paths, and URLs such as gs://bucket/folder through tf.io.gfile: one set of functions for both.

A path is a plain string or PathLike; what holds "://" is a URL and never passes through `pathlib`, which would make
gs:/bucket of it. Local paths do without TensorFlow, whose import takes seconds.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

PathLike = str | os.PathLike[str]
_REMOTE_THREADS = 32  # a request takes tens of milliseconds, nearly all of it waiting


class FileState(NamedTuple):
    """Length in bytes, and time of the last change in nanoseconds."""

    num_bytes: int
    mtime_ns: int


def is_remote(path: PathLike) -> bool:
    """Whether a path is a URL."""
    return "://" in os.fspath(path)


def join(folder: PathLike, *parts: PathLike) -> str:
    """Joins as os.path.join does; a part that is a URL or absolute stands alone, an empty one adds nothing."""
    joined = os.fspath(folder)
    for part in parts:
        if part := os.fspath(part):
            joined = part if is_remote(part) else posixpath.join(joined, part)
    return joined


def parent(path: PathLike) -> str:
    """Returns the folder that a path lies in; "" of a name alone, and the top of a URL itself."""
    text = os.fspath(path)
    if not is_remote(text):
        return os.path.dirname(text)
    scheme, _, rest = text.rstrip("/").partition("://")
    return f"{scheme}://{posixpath.dirname(rest) or rest}"


def absolute(path: PathLike) -> str:
    """Returns a path that holds wherever the process goes; a URL is one already."""
    return os.fspath(path).rstrip("/") if is_remote(path) else os.path.abspath(path)


def real(path: PathLike) -> str:
    """Returns the one path of a place, links followed, to compare places by."""
    return absolute(path) if is_remote(path) else os.path.realpath(path)


def exists(path: PathLike) -> bool:
    """Whether a file or a folder is there."""
    with _plain_errors(path):
        return _gfile().exists(os.fspath(path)) if is_remote(path) else os.path.exists(path)


def is_dir(path: PathLike) -> bool:
    """Whether a folder is there."""
    if not is_remote(path):
        return os.path.isdir(path)
    with _plain_errors(path):  # isdir alone hides every error: an unknown scheme, no permission
        return _gfile().exists(os.fspath(path)) and _gfile().isdir(os.fspath(path))


def is_file(path: PathLike) -> bool:
    """Whether a file is there."""
    return exists(path) and not is_dir(path) if is_remote(path) else os.path.isfile(path)


def state(path: PathLike) -> FileState:
    """Length and time of a file; raises OSError where it is absent."""
    if not is_remote(path):
        status = os.stat(path)
        return FileState(status.st_size, status.st_mtime_ns)
    with _plain_errors(path):
        found = _gfile().stat(os.fspath(path))
        return FileState(found.length, found.mtime_nsec)


def states(paths: Sequence[PathLike]) -> list[FileState]:
    """`state` of many files, remote ones side by side."""
    if not any(map(is_remote, paths)):
        return [state(path) for path in paths]
    with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
        return list(pool.map(state, paths))


def glob(folder: PathLike, pattern: str) -> list[str]:
    """Paths under a folder that match, sorted; `*` matches within one level."""
    if not is_remote(folder):
        return sorted(map(str, Path(folder).glob(pattern)))
    with _plain_errors(folder):
        return sorted(_gfile().glob(join(folder, pattern)))


def list_names(folder: PathLike) -> list[str]:
    """Names in a folder, sorted; none where it is absent."""
    if not is_dir(folder):
        return []
    with _plain_errors(folder):
        names = _gfile().listdir(os.fspath(folder)) if is_remote(folder) else os.listdir(folder)
    found = sorted(name.rstrip("/") for name in names)  # some file systems mark folders so
    if os.fspath(folder).startswith("ram://"):  # of a folder "dev" it lists what lies in "dev-other" too, as "-other"
        return [name for name in found if exists(join(folder, name))]
    return found


def make_dirs(folder: PathLike) -> None:
    """Makes a folder and those above it, as far as they are absent."""
    with _plain_errors(folder):
        if is_remote(folder):
            _gfile().makedirs(os.fspath(folder))
        else:
            os.makedirs(folder, exist_ok=True)


def open_binary(path: PathLike) -> BinaryIO:
    """Opens a file for reading; raises OSError where it is absent. A remote one is read as it is needed."""
    if not is_remote(path):
        return io.BufferedReader(open_regular(path))
    if not exists(path):  # GFile would say so at the first read
        raise FileNotFoundError(f"no file {os.fspath(path)}")
    return cast(BinaryIO, _gfile().GFile(os.fspath(path), "rb"))


def open_regular(path: PathLike) -> io.FileIO:
    """Opens a local file without a buffer; raises OSError at once for a pipe or a device, which could wait for ever."""
    # Not blocking, so that a pipe without a writer opens.
    file = io.FileIO(os.fspath(path), opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", os.fspath(path))
    return file


def read_bytes(path: PathLike) -> bytes:
    """The whole of a file."""
    if not is_remote(path):
        with open_regular(path) as local:
            return local.readall()
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "rb") as file:
        return file.read()


def read_range(path: PathLike, offset: int, length: int) -> bytes:
    """Up to `length` bytes of a file from `offset` on. For many reads of a local file keep it open instead."""
    if not is_remote(path):
        with open(path, "rb") as local:
            return os.pread(local.fileno(), length, offset)
    # A handle of its own: GFile has one position, and callers are threads.
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "rb") as file:
        file.seek(offset)
        return file.read(length)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file, not atomically."""
    if not is_remote(path):
        Path(path).write_bytes(content)
        return
    if os.fspath(path).startswith("ram://"):  # where writing anew appends
        remove(path)
    with _plain_errors(path), _gfile().GFile(os.fspath(path), "wb") as file:
        file.write(content)


def append_bytes(path: PathLike, content: bytes) -> None:
    """Appends to a file, which is made where it is absent.

    Raises:
        OSError: It could not be written, for want of room perhaps; a local file is as it was.
    """
    if is_remote(path):
        with _plain_errors(path), _gfile().GFile(os.fspath(path), "ab") as file:
            file.write(content)
        return
    # Unbuffered: the content goes out in one write call, which a kill finds done or not begun.
    with named_errors(path), open(path, "ab", buffering=0) as local:
        size = local.tell()
        try:
            num_written = local.write(content)
            if num_written != len(content):
                # On a disk that has just become full a part may fit; the rest says why it does not.
                local.write(content[num_written:])
        except OSError:
            local.truncate(size)
            raise


def copy(source: PathLike, target: PathLike) -> None:
    """Copies a file from or to a URL, over what is there."""
    with _plain_errors(target):
        _gfile().copy(os.fspath(source), os.fspath(target), overwrite=True)


def replace(source: PathLike, target: PathLike) -> None:
    """Renames a file within one file system, over what is there."""
    if not is_remote(target):
        os.replace(source, target)
        return
    with _plain_errors(target):
        _gfile().rename(os.fspath(source), os.fspath(target), overwrite=True)


def remove(path: PathLike) -> None:
    """Deletes a file, if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        with _plain_errors(path):
            _gfile().remove(os.fspath(path))


def move(source: PathLike, target: PathLike) -> None:
    """Renames a file or a folder within one file system, to where nothing is yet; behind a URL file by file."""
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
    """Deletes a folder with all that is in it, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in list_names(folder):
        path = join(folder, name)
        (remove_tree if is_dir(path) else remove)(path)
    with suppress(OSError), _plain_errors(folder):  # where there are no folders, it went with the last file
        _gfile().rmtree(os.fspath(folder))


@contextmanager
def named_errors(path: PathLike) -> Iterator[None]:
    """Gives an OSError that names no file this one: those of writes, syncs and locks name none."""
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
    """Turns TensorFlow's errors about a URL into OSError, one line each."""
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
