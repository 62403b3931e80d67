"""Locks a run's folder, keeps its config, and records the environment that it ran in."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common.json_files import MalformedFileError
from common.workdir_layout import CONFIG_FILE, ENVIRONMENT_FILE, LOCK_FILE, read_config
from engine.common import files
from engine.common.source_tree import find_commit

_CONTINUE = (
    "existing checkpoints are intact: make room or change the permissions, and the same command continues from the "
    "newest one"
)
# The system's words for storage errors, which libraries pass on.
_STORAGE_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "Read-only file system",
    "Permission denied",
    "Not a directory",
    "Input/output error",
    "Stale file handle",
)
_PACKAGES = ("tensorflow", "tf-keras", "tf-models-official", "tensorflow-hub", "numpy", "jiwer")


class WorkdirError(ValueError):
    """A workdir or checkpoint cannot be used as asked; the message is one line."""


# Errors of flock on a file system without locks.
_LOCKLESS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class WorkdirLock:
    """Keeps a second process out of a workdir; a context manager.

    The system releases the lock when the process ends in any way, so the lock file may stay. A URL has no locks, which
    is logged.
    """

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        self._workdir = os.fspath(workdir)
        self._descriptor: int | None = None

    def __enter__(self) -> WorkdirLock:
        """Creates the folder if necessary and takes the lock.

        Raises:
            WorkdirError: Another process holds the lock, or the file system has no locks.
            OSError: The folder cannot be created or written.
        """
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]", self._workdir):
            scheme, _, rest = self._workdir.partition(":/")
            raise WorkdirError(f"{self._workdir}: a URL has two slashes: write {scheme}://{rest}, or ./{self._workdir}")
        storage.make_dirs(self._workdir)
        path = storage.join(self._workdir, LOCK_FILE)
        if storage.is_remote(self._workdir):
            storage.write_bytes(path, b"")
            storage.remove(path)
            logging.info("%s: a URL has no lock; make sure that no other process writes there", self._workdir)
            return self
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            if error.errno in _LOCKLESS:
                raise WorkdirError(
                    f"{path}: the file system has no locks ({error.strerror}); mount it with locks (NFS: without "
                    "nolock, or with local_lock=flock), or choose a workdir on a local disk"
                ) from error
            if not isinstance(error, BlockingIOError):
                raise OSError(error.errno, error.strerror, path) from error
            raise WorkdirError(
                f"{self._workdir}: process {holder} is using this workdir; wait, stop it, or choose another workdir"
            ) from error
        try:
            with storage.named_errors(path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def save_config(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    allowed: Iterable[str] = (),
    replace: bool = False,
    may_change: Callable[[Mapping[str, Any]], Collection[str]] = lambda saved: (),
    later: Mapping[str, Any] | None = None,
) -> None:
    """Writes config.json once; for a continued run, checks that its config is the same.

    Args:
        workdir: Folder of the run.
        config: Nested fields of JSON values.
        allowed: Dotted names of fields or groups that may differ; the file keeps the first values.
        replace: Whether to replace an existing config because its run never produced a checkpoint.
        may_change: Maps the existing config to dotted names (group.field) of further fields that may differ; the file
            takes their new values, which are logged.
        later: Values of fields that older versions did not record, by dotted name.

    Raises:
        WorkdirError: Other fields differ; names them.
    """
    path = storage.join(workdir, CONFIG_FILE)
    if replace or not storage.is_file(path):
        files.write_json_atomic(path, config)
        return
    try:
        saved = read_config(path)
    except MalformedFileError as error:
        raise WorkdirError(f"{error}; repair it or choose another workdir") from error
    allowed, changed = tuple(allowed), tuple(may_change(saved))
    if differences := compare_config(saved, config, allowed=(*allowed, *changed), later=later):
        raise WorkdirError(
            f"{path}: the workdir was made with another config: {'; '.join(differences)};"
            " undo the change or choose another workdir"
        )
    differences = compare_config(saved, config, allowed=allowed, later=later)
    if not differences:
        return
    _take_values(saved, config, changed)
    files.write_json_atomic(path, saved)
    # An older version, which lacked a field, behaved as its default does.
    if told := [difference for difference in differences if " was absent, " not in difference]:
        logging.info("%s continues with other values: %s", workdir, "; ".join(told))


def _take_values(saved: dict[str, Any], config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Puts the values that a config has for some fields, group.field, into a saved one."""
    for group, _, field in (name.partition(".") for name in names):
        if field in config[group]:
            saved[group][field] = config[group][field]


def compare_config(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    allowed: Iterable[str] = (),
    later: Mapping[str, Any] | None = None,
) -> list[str]:
    """Lists the fields that differ, each as "group.field was OLD, is NEW", sorted by name.

    Args:
        saved: Config read from JSON.
        current: Config of this process; compared as JSON (tuples as lists).
        allowed: Dotted names of fields or groups that may differ.
        later: {dotted name: value} of fields that older versions did not have, with the value that does what they did;
            it counts as recorded where the field is absent.
    """
    before, after = flatten_config(files.to_json_value(saved)), flatten_config(files.to_json_value(current))
    for name, value in (later or {}).items():
        if name in after and not any(_is_within(known, name) for known in before):
            before[name] = json.dumps(files.to_json_value(value), ensure_ascii=False)
    ignored = tuple(allowed)
    differences = []
    for name in sorted(before.keys() | after.keys()):
        if any(_is_within(name, field) for field in ignored):
            continue
        old, new = before.get(name, "absent"), after.get(name, "absent")
        if old != new:
            differences.append(f"{name} was {old}, is {new}")
    return differences


def _is_within(name: str, field: str) -> bool:
    """Returns whether a dotted name is that of a field, or of one in the group `field`."""
    return name == field or name.startswith(f"{field}.")


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Maps dotted names to values as JSON text; an empty group is a value of its own."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten_config(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = json.dumps(value, ensure_ascii=False)
    return flat


def write_environment(
    workdir: str | os.PathLike[str],
    *,
    num_parameters: int | None = None,
    num_trained: int | None = None,
    trained_row_secs: float | None = None,
) -> dict[str, Any]:
    """Writes environment.json (versions, devices, command, commit, size of the model) and returns its content.

    Args:
        workdir: Folder of the run.
        num_parameters: Parameters of the model; None = unknown.
        num_trained: Those of them that are trained.
        trained_row_secs: Length of the training rows, see `engine.config.row_length`; None = it does not matter.
    """
    environment = {
        "command": sys.argv,
        "commit": find_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "packages": package_versions(),
        "num_parameters": num_parameters,
        "num_trained": num_trained,
        "trained_row_secs": trained_row_secs,
    }
    files.write_json_atomic(storage.join(workdir, ENVIRONMENT_FILE), environment)
    return environment


def package_versions() -> dict[str, str | None]:
    """Returns the versions of the packages that affect a run's results; None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@contextlib.contextmanager
def storage_faults(workdir: str | os.PathLike[str], *, advice: str = _CONTINUE) -> Iterator[None]:
    """Turns Python's and TensorFlow's many errors for a full or read-only disk into one line.

    Args:
        workdir: Folder that is written, which the line names.
        advice: What the line says after the reason.

    Raises:
        WorkdirError: Something could not be written.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        # TensorFlow puts the place in its graph around the reason.
        where, reason = "", re.sub(r"^\{\{.*?\}\} | \[Op:.*", "", str(error))
        if isinstance(error, OSError):
            where, reason = f" ({error.filename})" if error.filename else "", error.strerror or reason
        # Each remote service has its own words; an error that names the workdir is about it.
        is_about_url = storage.is_remote(workdir) and not isinstance(error, OSError) and os.fspath(workdir) in reason
        if not is_about_url and not any(word in reason for word in _STORAGE_WORDS):
            raise
        raise WorkdirError(f"{workdir}: cannot be written{where}: {reason.splitlines()[0]}; {advice}") from error
