"""Reads vocab.json: the tokens of a CTC head and their ids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.json_files import MalformedFileError, is_kind, read_object


def read_vocab(path: str | os.PathLike[str]) -> dict[str, int]:
    """Reads a vocab.json as token -> id, in the order of the ids, which are 0 to N - 1.

    Raises:
        FileNotFoundError: If there is no `path`.
        ValueError: If the file is not such an object or the ids have gaps.
    """
    return order_token_ids(Path(path), read_token_ids(Path(path)))


def read_token_ids(path: Path, target_lang: str = "") -> dict[str, int]:
    """Reads a vocab.json as it stands: ids may have gaps.

    Args:
        path: The file.
        target_lang: Language to read of a file of several, as MMS has it.

    Raises:
        FileNotFoundError: If there is no `path`.
        ValueError: If the file is not an object of token -> id.
    """
    return _find_token_ids(path, _read(path), target_lang)


def holds_languages(path: Path) -> bool:
    """Returns whether a vocab.json has an object of token -> id for each language, as that of MMS."""
    found = _read(path)
    return bool(found) and all(isinstance(value, dict) for value in found.values())


def read_language_ids(path: Path) -> dict[str, dict[str, int]]:
    """Reads a vocab.json of several languages as language -> token -> id; raises as `read_token_ids`."""
    found = _read(path)
    return {language: _find_token_ids(path, found, language) for language in found}


def _find_token_ids(path: Path, found: dict[str, Any], target_lang: str) -> dict[str, int]:
    """Returns token -> id, those of a language if the file `found` has them; the error names `path`."""
    if target_lang and isinstance(found.get(target_lang), dict):
        found = found[target_lang]
    if not all(is_kind(index, int) and index >= 0 for index in found.values()):
        raise ValueError(
            f"{path}: not an object of token -> id; choose a language with --target_lang, or give the vocabulary of "
            "one language with --vocab"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make one with python -m data.vocab")
    try:
        return read_object(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; fetch it again or remove it") from error


def order_token_ids(path: Path, ids: Mapping[str, int]) -> dict[str, int]:
    """Returns token -> id in the order of the ids.

    Raises:
        ValueError: If the ids are not 0 to N - 1, each once; the message names `path`.
    """
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{path}: the ids are not 0 to {len(ids) - 1}, each once; correct the file")
    return dict(sorted(ids.items(), key=lambda item: item[1]))
