"""Reads and merges the fields of config.decode from the command line, a file, a run and the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.json_files import describe, is_kind, read_json

# A field that --mode=tune_lm adds to its file for people to read.
TUNING = "tuning"


def read_decode_file(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Reads fields of config.decode from a JSON object, some or all of them.

    Args:
        path: A file that --mode=tune_lm or a user has written.
        known: Every field of config.decode, with a value of its type.

    Raises:
        ValueError: Names the file, the field and what was wanted.
    """
    try:
        fields = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--decode={path}: not a readable JSON file ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"--decode={path}: not an object with fields of config.decode")
    found = {}
    for name, value in fields.items():
        if name == TUNING:
            continue
        if name not in known:
            raise ValueError(f"--decode={path}: config.decode has no field {_shown(name)}; it has {', '.join(known)}")
        found[name] = _as_type_of(known[name], value, f"--decode={path}: {name}")
    return found


def _as_type_of(example: Any, value: Any, where: str) -> Any:
    if isinstance(example, (tuple, list)):
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        raise ValueError(f"{where}={_shown(value)}: wanted a list of words")
    wanted = type(example)
    if not is_kind(value, wanted):
        raise ValueError(f"{where}={_shown(value)}: wanted {wanted.__name__}")
    return float(value) if wanted is float else value


def _shown(value: Any) -> str:
    """Returns a value for a message: its repr if that is short, else a description."""
    return repr(value) if isinstance(value, (str, bool, float)) and len(repr(value)) < 100 else describe(value)


def give_decode(
    config_fields: Mapping[str, Any], *, known: Mapping[str, Any], path: str, hot_words: Sequence[str]
) -> dict[str, Any]:
    """Returns the fields that the command line gives; --decode overrides --config, and --hot_words overrides both.

    Args:
        config_fields: The fields of --config; {} without one.
        known: Every field of config.decode, with a value of its type.
        path: The file of --decode; "" = none.
        hot_words: The values of --hot_words.
    """
    given = {**config_fields, **(read_decode_file(path, known) if path else {})}
    if hot_words:
        given["hot_words"] = tuple(hot_words)
        if given.get("method") == "greedy":  # greedy decoding has no hot words
            given["method"] = "beam"
    return given


def choose_decode(defaults: Mapping[str, Any], recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every field: as given, else as a run recorded it, else its default.

    Args:
        defaults: Every field of config.decode with its default.
        recorded: The fields in a run's config.json; runs of older versions have none.
        given: The fields of `give_decode`.
    """
    chosen = {name: given.get(name, recorded.get(name, default)) for name, default in defaults.items()}
    if given.get("hot_words") and "method" not in given and chosen["method"] == "greedy":
        chosen["method"] = "beam"
    return chosen
