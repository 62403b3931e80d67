"""Fetches the data files of datasets of the Hugging Face Hub through its library: its cache, login and offline mode."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common.readable import describe_error
from common.spread_paths import HUB_DATASETS, is_pattern
from data.common.errors import InputError

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+(?:/convert/parquet)?))?(?:/(?P<path>.+))?")
_CONVERTED = "refs/convert/parquet"  # the branch to which the Hub writes every dataset as Parquet


class _Dataset(NamedTuple):
    repository: str
    revision: str | None
    path: str


def is_hub_dataset(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is hf://datasets/OWNER/NAME, perhaps with @REVISION and a folder or pattern."""
    return os.fspath(path).startswith(HUB_DATASETS)


def fetch_dataset(name: str, suffixes: Sequence[str], choose: Callable[[Sequence[str]], list[str]]) -> list[str]:
    """Downloads the chosen files of a dataset, unless the library's cache has them.

    Args:
        name: hf://datasets/OWNER/NAME[@REVISION][/FOLDER, FILE or PATTERN].
        suffixes: Suffixes of the files to fetch.
        choose: Returns the wanted ones of the names of files.

    Returns:
        The paths of the files in the cache, sorted.

    Raises:
        InputError: If the name is malformed, or the dataset cannot be fetched or has no such file.
    """
    found = _NAME.fullmatch(name.removeprefix(HUB_DATASETS).rstrip("/"))
    if found is None:
        raise InputError(f"{name}: not a dataset; write hf://datasets/OWNER/NAME[@REVISION][/FOLDER]")
    dataset = _Dataset(found["repository"], found["revision"], found["path"] or "")
    try:
        return _fetch(name, dataset, suffixes, choose)
    except InputError:
        raise
    except Exception as error:  # the library's transports raise more than one family
        reason = describe_error(error, 200)
        raise InputError(
            f"{name} cannot be fetched ({reason}): check the name and the network, log in with `hf auth login`, and "
            "run the same command again"
        ) from error


def _fetch(
    name: str, dataset: _Dataset, suffixes: Sequence[str], choose: Callable[[Sequence[str]], list[str]]
) -> list[str]:
    from huggingface_hub import snapshot_download

    repository = dataset.repository
    revisions = [dataset.revision] if dataset.revision else [None, _CONVERTED]
    for revision in revisions:
        listed = sorted(_list_files(repository, revision))
        wanted = [file for file in listed if file.endswith(tuple(suffixes)) and _is_under(file, dataset.path)]
        if wanted:
            break
    else:
        raise InputError(f"{name} has no file with {' or '.join(f'*{suffix}' for suffix in suffixes)}: check the name")
    chosen = choose(wanted)
    patterns = [glob.escape(file) for file in chosen]
    folder = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns)
    return [os.path.join(folder, file) for file in chosen]


def _list_files(repository: str, revision: str | None) -> list[str]:
    """Returns the files of a dataset; offline, those that the library's cache has."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if not constants.HF_HUB_OFFLINE:
        return HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
    folder = snapshot_download(repository, repo_type="dataset", revision=revision)
    walked = ((parent, file) for parent, _, files in os.walk(folder) for file in files)
    return [os.path.relpath(os.path.join(parent, file), folder) for parent, file in walked]


def _is_under(file: str, path: str) -> bool:
    if is_pattern(path):
        return fnmatch.fnmatchcase(file, path)
    return not path or file == path or file.startswith(f"{path}/")
