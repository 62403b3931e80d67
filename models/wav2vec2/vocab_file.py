"""Reads vocab.json: the tokens of a CTC head and their ids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from common.json_files import MalformedFileError, is_kind, read_object


def read_vocab(path: str | os.PathLike[str]) -> dict[str, int]:
    """Reads a vocab.json as token -> id, in the order of the ids, which are 0 to N - 1.

    Raises:
        FileNotFoundError: If there is no `path`.
        ValueError: If the file is not such an object or the ids have gaps.
    """
    return order_token_ids(Path(path), read_token_ids(Path(path)))


def read_token_ids(path: Path) -> dict[str, int]:
    """Reads a vocab.json as it stands: ids may have gaps.

    Raises:
        FileNotFoundError: If there is no `path`.
        ValueError: If the file is not an object of token -> id.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make one with python -m data.vocab")
    try:
        found = read_object(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; fetch it again or remove it") from error
    if not all(is_kind(index, int) and index >= 0 for index in found.values()):
        raise ValueError(f"{path}: not an object of token -> id; give the vocabulary of one language with --vocab")
    return found


def order_token_ids(path: Path, ids: Mapping[str, int]) -> dict[str, int]:
    """Returns token -> id in the order of the ids.

    Raises:
        ValueError: If the ids are not 0 to N - 1, each once; the message names `path`.
    """
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{path}: the ids are not 0 to {len(ids) - 1}, each once; correct the file")
    return dict(sorted(ids.items(), key=lambda item: item[1]))
